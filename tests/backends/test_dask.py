"""`Pool(backend="dask")`: the conformance suite, what is refused, and workers that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numba as nb
import numpy as np
import psutil
import pytest
from clusters import dask_pool

import shmcompute as sc
from shmcompute import testing
from shmcompute.backends import Backend, make_backend
from shmcompute.errors import KernelTimeoutError

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def pool():
    with dask_pool() as pool:
        yield pool


@pytest.mark.parametrize("check", testing.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, pool):
    if check.__name__ == "check_shared_whole":
        with pytest.raises(TypeError, match="see copies"):
            check(pool, {"storage": "shm"})
    else:
        check(pool, {"storage": "shm"})


def slow(x, seconds):
    time.sleep(seconds)
    x += 1


def test_plain_arrays_do_as_well_and_only_the_caller_writes(pool):
    x = np.arange(10.0)
    sc.parallel_apply(np.negative, x, pool=pool)
    np.testing.assert_array_equal(x, -np.arange(10.0))


def test_its_cluster_listens_on_loopback_alone(pool):
    info = pool.running._client.scheduler_info()
    addresses = [info["address"], *info["workers"]]
    assert all("//127.0.0.1:" in address for address in addresses), addresses


def test_a_client_is_used_and_left_open(pool):
    client = pool.running._client
    with sc.Pool(backend="dask", client=client) as other, sc.SharedArray.zeros(8) as arr:
        sc.parallel_apply(slow, arr, 0.0, pool=other)
        assert (arr.array == 1).all()
    assert client.status == "running"


def test_a_timeout_leaves_what_was_not_done_as_it_was(pool):
    with sc.SharedArray.zeros(40) as arr:
        with pytest.raises(KernelTimeoutError) as caught:
            sc.parallel_apply(slow, arr, 0.2, pool=pool, chunksize=10, timeout=0.3)
        undone = sorted(caught.value.chunks)
        assert undone
        seen = arr.array.copy()
        for start, stop in undone:
            assert (seen[start:stop] == 0).all()
        time.sleep(0.5)
        np.testing.assert_array_equal(arr.array, seen)


def test_what_a_kernel_raises_names_its_chunk(pool):
    def fails(x, start):
        if start == 20:
            raise ArithmeticError("no")
        x += 1

    with sc.SharedArray.zeros(40) as arr:
        with pytest.raises(ArithmeticError) as caught:
            sc.parallel_apply(fails, arr, sc.offset, pool=pool, chunksize=10)
        assert any("[20, 30)" in note for note in caught.value.__notes__)


def test_a_worker_that_is_killed_costs_nothing_but_time(pool):
    def once(x, path):
        if not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        x += 1

    with sc.SharedArray.zeros(40) as arr:
        path = f"/tmp/{arr.name}-killed"
        try:
            sc.parallel_apply(once, arr, path, pool=pool, chunksize=10)
        finally:
            os.unlink(path)
        assert (arr.array == 1).all()


def test_shared_is_refused(pool):
    with sc.SharedArray.zeros(4) as arr, pytest.raises(TypeError, match="see copies"):
        sc.parallel_apply(np.copyto, arr, sc.shared(arr.array.copy()), pool=pool)


def test_what_is_written_without_being_read_does_not_travel(pool):
    @nb.njit
    def fill(out):
        for i in range(out.size):
            out[i] = i

    with sc.SharedArray.full(10, 7.0) as arr:
        sc.parallel_apply(fill, sc.write(arr), pool=pool, chunksize=5)
        np.testing.assert_array_equal(arr.array, [0, 1, 2, 3, 4] * 2)


def test_tasks(pool):
    assert list(pool.map(pow, [2, 3], [5, 2])) == [32, 9]
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result(60)


def test_a_client_of_another_backend_is_refused():
    with pytest.raises(ValueError, match="client"):
        sc.Pool(2, backend="threads", client=object())


@pytest.mark.parametrize(
    "option", [{"pin": True}, {"caller_runs": True}, {"threads_per_worker": 2}], ids=str
)
def test_what_a_cluster_decides_is_refused(option):
    with pytest.raises(TypeError, match=next(iter(option))):
        sc.Pool(2, backend="dask", **option)


def test_a_pool_takes_any_backend():
    class Counted(type(make_backend("serial", 1, "spawn", threads_per_worker=1,
                                    caller_runs=False, pin=False))):  # fmt: skip
        runs = 0

        def run(self, *args, **keywords):
            type(self).runs += 1
            super().run(*args, **keywords)

    assert issubclass(Counted, Backend)
    with sc.Pool(backend=Counted()) as pool, sc.SharedArray.zeros(4) as arr:
        sc.parallel_apply(np.cos, arr, pool=pool)
        assert (arr.array == 1).all()
        assert pool.backend == "Counted"
    assert Counted.runs == 1


PROGRAM = """
import os, signal, sys
import numpy as np, psutil, shmcompute as sc
print("begun", flush=True)
def double(x):
    x *= 2
pool = sc.Pool(2, backend="dask")
arr = sc.SharedArray(np.arange(4.0))
sc.parallel_apply(double, arr, pool=pool)
print(arr.array.tolist(), flush=True)
print(*(one.pid for one in psutil.Process().children(recursive=True)), flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["killed", "ended"])
def test_a_program_needs_no_guard_and_leaves_no_process(tmp_path, how):
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "program.py", how],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    begun, doubled, pids = done.stdout.splitlines()
    assert (begun, doubled) == ("begun", "[0.0, 2.0, 4.0, 6.0]")
    processes = [psutil.Process(int(pid)) for pid in pids.split() if psutil.pid_exists(int(pid))]
    assert not psutil.wait_procs(processes, timeout=60)[1]

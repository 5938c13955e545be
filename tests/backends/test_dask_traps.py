"""`Pool(backend="dask")` where things go wrong: what does not travel, who stops, who is lost."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import threading

import leaks
import numba as nb
import numpy as np
import pytest
from clusters import dask_pool

import shmcompute as sc
from shmcompute.errors import (
    KernelSerializationError,
    RemoteKernelError,
    WorkerInitError,
    WorkerLostError,
)

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def pool():
    with dask_pool() as pool:
        yield pool


@pytest.fixture(scope="module")
def threaded():
    """A client whose only worker has several threads."""
    with leaks.kept():
        cluster = distributed.LocalCluster(
            n_workers=1, threads_per_worker=4, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        )
        client = distributed.Client(cluster, set_as_default=False)
        client.submit(int).result()
    yield client
    client.close()
    cluster.close()


def works(pool):
    x = np.arange(10.0)
    sc.parallel_apply(np.negative, x, pool=pool, chunksize=2)
    np.testing.assert_array_equal(x, -np.arange(10.0))


def with_lock():
    lock = threading.Lock()
    return lambda x: lock


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda pool: sc.parallel_apply(with_lock(), np.zeros(4), pool=pool), "kernel with_lock"),
        (
            lambda pool: sc.parallel_apply(np.copyto, np.zeros(4), threading.Lock(), pool=pool),
            "an argument of kernel copyto",
        ),
        (lambda pool: pool.submit(id, threading.Lock()).result(60), "an argument of it"),
        (lambda pool: pool.submit(with_lock()).result(60), "with_lock"),
        (lambda pool: pool.submit(threading.Lock).result(60), "Return what pickles"),
    ],
    ids=["kernel", "argument", "task's argument", "task", "result"],
)
def test_what_does_not_travel_is_told(pool, call, match):
    with pytest.raises(KernelSerializationError, match=match):
        call(pool)
    works(pool)


class TwoParts(Exception):  # noqa: N818
    def __init__(self, one, two):
        super().__init__(one)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (SystemExit(3), SystemExit),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (distributed.Reschedule(), distributed.Reschedule),
        (TwoParts(1, 2), RemoteKernelError),
    ],
    ids=lambda one: getattr(one, "__name__", type(one).__name__),
)
def test_whatever_a_kernel_or_task_raises_comes_back_and_workers_stay(pool, raised, expected):
    name, args = type(raised).__name__, (1, 2) if isinstance(raised, TwoParts) else raised.args

    def fails(x=None):
        kind = {**vars(__import__("builtins")), **vars(distributed), "TwoParts": TwoParts}[name]
        raise kind(*args)

    before = set(pool.running._client.nthreads())
    with pytest.raises(expected):
        sc.parallel_apply(fails, np.zeros(4), pool=pool)
    with pytest.raises(expected):
        pool.submit(fails).result(60)
    assert set(pool.running._client.nthreads()) == before
    works(pool)


def test_a_kernel_that_kills_its_worker_each_time_is_given_up(pool):
    def kill(x, start):
        if start == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        x += 1

    x = np.zeros(40)
    with pytest.raises(WorkerLostError) as caught:
        sc.parallel_apply(kill, x, sc.offset, pool=pool, chunksize=10)
    for start, stop in caught.value.chunks:
        assert (x[start:stop] == 0).all()
    assert (0, 10) in caught.value.chunks
    works(pool)


def test_a_cancelled_task_is_dropped_by_dask_too(pool):
    sent = []
    submit = pool.running._client.submit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pool.running._client, "submit", lambda *a, **k: sent.append(submit(*a, **k)) or sent[-1]
        )
        event = distributed.Event("go", client=pool.running._client)
        futures = [pool.submit(event.wait, 60) for _ in range(8)]
    assert all(future.cancel() for future in futures)
    assert all(future.cancelled() for future in sent)
    event.set()
    works(pool)


def test_an_initializer_runs_once_in_each_worker_before_anything_else():
    def prepare(word):
        os.environ["PREPARED"] = os.environ.get("PREPARED", "") + word

    def look(x):
        x[:] = len(os.environ["PREPARED"])

    with (
        leaks.kept(),
        sc.Pool(1, backend="dask", initializer=prepare, initargs=("yes",)) as pool,
    ):
        x = np.zeros(6)
        sc.parallel_apply(look, x, pool=pool, chunksize=2)
        assert (x == 3).all()
        assert pool.submit(os.getenv, "PREPARED").result(60) == "yes"


def test_an_initializer_that_fails_is_told(pool):
    client = pool.running._client
    with sc.Pool(backend="dask", client=client, initializer=divmod, initargs=(1, 0)) as broken:
        with pytest.raises(WorkerInitError, match="divmod failed in worker"):
            broken.submit(int).result(60)
        with pytest.raises(WorkerInitError, match="ZeroDivisionError"):
            sc.parallel_apply(np.negative, np.zeros(4), pool=broken)
    works(pool)


@nb.njit(parallel=True)
def add_in_parallel(x):
    for i in nb.prange(x.size):
        x[i] += 1


def test_parallel_kernels_on_a_worker_of_several_threads(threaded):
    """Numba's workqueue layer aborts a process in which two threads enter it."""
    before = set(threaded.nthreads())
    with sc.Pool(backend="dask", client=threaded) as pool:
        x = np.zeros(1000)
        sc.parallel_apply(add_in_parallel, x, pool=pool, chunksize=20)
        assert (x == 1).all()
    assert set(threaded.nthreads()) == before


def test_what_all_chunks_see_is_sent_again_where_all_who_had_it_died(threaded, tmp_path):
    def add_last(x, table, path):
        if not os.path.exists(path):
            open(path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        x += table[-1]

    x, table = np.zeros(10), np.arange(100_000.0)
    with sc.Pool(backend="dask", client=threaded) as pool:
        path = str(tmp_path / "killed")
        sc.parallel_apply(add_last, x, sc.whole(table), path, pool=pool, chunksize=1)
    assert os.path.exists(path)
    assert (x == 99_999).all()


def test_a_shared_array_is_an_argument_of_tasks_and_small_for_dask(pool):
    """What a worker that spills it would gain, and what it costs to send: a handle."""
    from dask.sizeof import sizeof

    def add(array):
        array.array[0] += 1
        return array.array.sum()

    with sc.SharedArray(np.ones(1000)) as arr:
        assert pool.submit(add, arr).result(60) == 1001
        assert arr.array[0] == 2
        assert sizeof(arr) < 1024


def test_views_of_shared_arrays_go_as_what_they_hold(pool):
    """Workers may be on other hosts, so what a kernel sees of other arguments is a copy."""
    with sc.SharedArray(np.arange(10.0)) as arr:
        assert pool.submit(np.sum, arr.array[2:5]).result(60) == 9
        assert pool.submit(lambda x: "Shared" in repr(type(x.base)), arr.array).result(60) is False


def test_handles_that_come_to_another_host_say_what_to_send(tmp_path):
    with sc.SharedArray(np.ones(3)) as arr:
        handle = arr.segment.handle
    with pytest.raises(sc.errors.SegmentNotFoundError, match="another host's"):
        handle.map()
    with sc.SharedArray(np.ones(3), storage="file", name=tmp_path / "x.npy") as arr:
        elsewhere = dataclasses.replace(arr.segment.handle, host="another")
        with pytest.raises(sc.errors.StorageError, match="another machine"):
            elsewhere.map()


def test_a_task_may_make_a_pool_in_a_daemonic_worker(pool):
    def inner():
        x = np.arange(4.0)
        sc.parallel_apply(np.negative, x)
        with sc.Pool(2) as own:
            return x.tolist(), own.submit(pow, 2, 5).result(60)

    assert pool.submit(inner).result(60) == ([0, -1, -2, -3], 32)


def test_debug_retries_and_progress_do_as_on_other_backends(pool):
    @nb.njit
    def beyond(x):
        x[x.size] = 1

    seen, x = [], np.zeros(40)
    sc.parallel_apply(
        np.cos, x, pool=pool, chunksize=10, retries=2, progress=lambda *at: seen.append(at)
    )
    assert (x == 1).all()
    assert seen[-1] == (4, 4)
    with pytest.raises(IndexError):
        sc.parallel_apply(beyond, x, pool=pool, debug=True)


def test_the_callers_error_state_rules(pool):
    def divide(x):
        np.divide(1, x, out=x)

    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        sc.parallel_apply(divide, np.zeros(4), pool=pool)
    with np.errstate(divide="ignore"):
        sc.parallel_apply(divide, np.zeros(4), pool=pool)


def test_workers_of_another_kind_are_warned_of(pool):
    def change():
        from shmcompute.backends.processes.protocol import kernel_bytes

        real = kernel_bytes.fingerprint()
        kernel_bytes.fingerprint = lambda: (*real, "another CPU")

    def restore():
        import importlib

        from shmcompute.backends.processes.protocol import kernel_bytes

        importlib.reload(kernel_bytes)

    @nb.njit
    def double(x):
        for i in range(x.size):
            x[i] *= 2

    client = pool.running._client
    client.run(change)
    try:
        x = np.ones(4)
        with (
            sc.Pool(backend="dask", client=client) as other,
            pytest.warns(RuntimeWarning, match="2 of 2 workers of the cluster"),
        ):
            sc.parallel_apply(double, x, pool=other)
        assert (x == 2).all()
    finally:
        client.run(restore)


PROGRAM = """
import os, signal, sys, time
import numpy as np, shmcompute as sc

def slow(x, folder):
    open(os.path.join(folder, str(os.getpid())), "w").close()
    time.sleep(0.2)
    x += 1

if __name__ == "__main__":
    pool = sc.Pool(2, backend="dask").ready()
    x = sc.SharedArray.zeros(400)
    print("begin", flush=True)
    try:
        sc.parallel_apply(slow, x, sys.argv[1], pool=pool, chunksize=10)
    except KeyboardInterrupt:
        seen = x.array.copy()
    y = np.zeros(4)
    sc.parallel_apply(np.cos, y, pool=pool)  # its workers are done with what they had
    print("whole", {0.0, 1.0} >= set(np.unique(seen)), (seen == 0).any())
    print("unchanged", (seen == x.array).all(), (y == 1).all())
    pool.close()
    print("closed", flush=True)
"""


def test_ctrl_c_ends_a_call_and_then_nobody_writes(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    (seen := tmp_path / "seen").mkdir()
    process = subprocess.Popen(
        [sys.executable, str(program), str(seen)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begin\n"
    while not any(seen.iterdir()):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to workers, too
    out, err = process.communicate(timeout=100)
    expected = ["whole True True", "unchanged True True", "closed"]
    assert out.splitlines() == expected, err

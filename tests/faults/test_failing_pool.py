"""Each call to the system by which a caller starts and reaches workers may fail, at any time."""

from __future__ import annotations

import gc
import os
import signal
import threading
from contextlib import suppress
from errno import EAGAIN, EMFILE

import failing
import kernels
import numpy as np
import psutil
import pytest

import shmcompute as sc
from shmcompute import storage

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux's calls")


# What is not removed is an orphan: see test_failing_storage.py.
REACHING = [*failing.POOL, *(call for call in failing.STORAGE if "unlink" not in call[1])]


@pytest.fixture(autouse=True)
def in_shm(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_STORAGE", "shm")  # no fallback, and no warning of it


def _left():
    return {
        "segments mapped": {segment.address for segment in storage.live()},
        "descriptors": failing.descriptors(),
        "children": {child.pid for child in psutil.Process().children()},
        "threads": set(threading.enumerate()),
    }


def _tried(scenario, fault):
    """Run a scenario with a fault: it works, or its error is of a type of ours; nothing is left."""
    gc.collect()  # what earlier trials have dropped is not to go in the middle of this one
    before = _left()
    with pytest.MonkeyPatch.context() as patch, suppress(sc.errors.ShmComputeError):
        fault.patch(patch)
        scenario()
    if fault.name in ("pipe", "fork"):
        _forgotten(before["descriptors"])
    if _left() != before:
        gc.collect()
    left = _left()
    less = all(left[kind] <= before[kind] for kind in before)  # of what was there before, some went
    return before, before if less else left


def _forgotten(before):
    """Close the pipes of a process that the standard library could not fork: it does not."""
    here = [target for _, target in failing.descriptors()]
    for fd, target in failing.descriptors() - before:
        if target.startswith("pipe:") and here.count(target) == 2:
            os.close(fd)


def _works(pool):
    with sc.SharedArray(np.arange(4.0)) as arr:
        sc.parallel_apply(kernels.affine_python, arr, 3.0, 1.0, pool=pool)
        np.testing.assert_array_equal(arr.array, np.arange(4.0) * 3 + 1)


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_pool_that_can_not_start_is_typed_and_leaves_nothing(method, sweep):
    def scenario():
        with sc.Pool(2, start_method=method) as pool:
            pool.ready()

    def trial(fault):
        before, left = _tried(scenario, fault)
        assert left == before, fault

    scenario()
    for function in failing.POOL:
        if (method, function) != ("forkserver", (os, "pipe")):  # it ends the server: see below
            sweep(function, trial, (EMFILE,))
            scenario()


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "left in the lurch"])
def test_a_fork_server_that_ends_is_replaced(how):
    """The standard library's ends by itself, with a traceback, if a client gives up half-way."""
    done = kernels.run(
        """
        import os, signal, sys
        from contextlib import suppress
        from multiprocessing import forkserver
        import numpy as np, shmcompute as sc

        with sc.Pool(2, start_method="forkserver") as pool, sc.SharedArray(np.ones(4)) as arr:
            server, real = forkserver._forkserver, os.pipe
            sc.parallel_apply(np.negative, arr, pool=pool)
            first = server._forkserver_pid
            if sys.argv[1] == "killed":
                os.kill(first, signal.SIGKILL)
            else:
                called = []
                def fails():
                    called.append(1)
                    raise OSError(24, "no more descriptors")
                os.kill(pool.pids[0], signal.SIGKILL)
                os.pipe = fails
                while not called:
                    with suppress(sc.errors.WorkerLostError):
                        sc.parallel_apply(np.negative, arr, pool=pool)
                os.pipe = real
            for pid in pool.pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with suppress(sc.errors.WorkerLostError):  # whose end is seen in the call
                sc.parallel_apply(np.negative, arr, pool=pool)
            arr[:] = 1
            sc.parallel_apply(np.negative, arr, pool=pool)
            assert server._forkserver_pid != first
            print(abs(arr.array).sum())
        """,
        how,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "4.0"


@pytest.mark.long
def test_a_worker_that_can_not_be_replaced_is_missed_by_one_call_only(sweep):
    with sc.Pool(2, start_method="fork") as pool:
        _works(pool)

        def trial(fault):
            os.kill(pool.pids[0], signal.SIGKILL)
            os.waitid(os.P_PID, pool.pids[0], os.WEXITED | os.WNOWAIT)
            _tried(lambda: _works(pool), fault)
            _works(pool)
            assert len(set(pool.pids)) == 2

        for function in failing.POOL:
            sweep(function, trial, (EAGAIN,))


@pytest.mark.long
@pytest.mark.parametrize("waiting", ["futex", "poll"])
def test_a_call_that_fails_is_typed_and_the_pool_works(waiting, monkeypatch, sweep):
    monkeypatch.setenv("SHMCOMPUTE_WAIT", waiting)
    with sc.Pool(2, start_method="fork") as pool, sc.SharedArray(np.arange(4.0)) as arr:
        calls = [
            lambda: sc.parallel_apply(lambda x: None, arr, pool=pool),
            lambda: sc.parallel_apply(kernels.affine, arr, 1.0, 0.0, pool=pool),
            lambda: sc.parallel_apply(kernels.affine_python, arr, 1.0, 0.0, retries=2, pool=pool),
            lambda: _works(pool),
        ]
        for call in calls:
            call()
            pids = pool.pids

            def trial(fault, call=call):
                before, left = _tried(call, fault)
                assert left == before, fault
                np.testing.assert_array_equal(arr.array, np.arange(4.0))
                call()

            for function in REACHING:
                sweep(function, trial, (EMFILE,))
            assert pool.pids == pids

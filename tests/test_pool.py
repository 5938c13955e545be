"""Pools: who they are, how many, and which one a call gets."""

from __future__ import annotations

import multiprocessing
import os

import numpy as np
import pytest
from kernels import run

import shmcompute as sc
from shmcompute.system import cores


@pytest.mark.parametrize(
    ("workers", "kind"),
    [(0, ValueError), (-2, ValueError), ("two", TypeError), (1.5, TypeError), (True, TypeError)],
)
@pytest.mark.parametrize("backend", ["processes", "threads", "serial"])
def test_a_bad_number_of_workers_is_named(workers, kind, backend):
    with pytest.raises(kind, match="workers"):
        sc.Pool(workers, backend=backend)


def test_words_that_are_not_known_list_those_that_are():
    with pytest.raises(ValueError, match="'processes', 'threads', 'serial'"):
        sc.Pool(1, backend="gpu")
    with pytest.raises(ValueError, match="'fork', 'spawn', 'forkserver'"):
        sc.Pool(1, start_method="clone")
    with pytest.raises(ValueError, match="threads_per_worker"):
        sc.Pool(1, threads_per_worker=0)


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_WORKERS", "3")
    monkeypatch.setenv("SHMCOMPUTE_BACKEND", "threads")
    with sc.Pool() as pool:
        assert (pool.backend, pool.workers, pool.pids) == ("threads", 3, [])
    monkeypatch.setenv("SHMCOMPUTE_WORKERS", "many")
    with pytest.raises(ValueError, match="SHMCOMPUTE_WORKERS='many'"):
        sc.Pool()
    monkeypatch.delenv("SHMCOMPUTE_WORKERS")
    with sc.Pool() as pool:
        assert pool.workers == cores.granted()
    monkeypatch.setenv("SHMCOMPUTE_BACKEND", "gpu")
    with pytest.raises(ValueError, match="SHMCOMPUTE_BACKEND"):
        sc.Pool()


def test_workers_are_processes_with_these_pids(process_pool):
    with sc.SharedArray(np.zeros(2, int)) as arr:

        def kernel(x):
            x[:] = os.getpid()

        sc.parallel_apply(kernel, arr, pool=process_pool)
        assert sorted(arr.array) == sorted(process_pool.pids)


def test_repr_tells_backend_and_workers():
    pool = sc.Pool(2, backend="threads")
    assert repr(pool) == "Pool(backend='threads', workers=2)"
    pool.close()
    assert repr(pool) == "Pool(backend='threads', closed)"


def test_ready_returns_the_pool(any_pool):
    assert any_pool.ready() is any_pool


@pytest.mark.long
def test_the_common_pool_lives_until_shutdown():
    done = run(
        """
        import numpy as np, shmcompute as sc
        from shmcompute.default_pools import default_pool
        with sc.SharedArray(np.ones(4)) as arr:
            sc.parallel_apply(np.negative, arr)
            first = default_pool()
            sc.parallel_apply(np.negative, arr)
            assert default_pool() is first
            sc.shutdown()
            sc.shutdown()
            sc.parallel_apply(np.negative, arr)
            assert default_pool() is not first
            print(arr.array[0])
        """
    )
    assert done.stdout == "-1.0\n"


def _within(conn):
    with sc.SharedArray(np.ones(4)) as arr:
        sc.parallel_apply(np.negative, arr)
        conn.send(arr.array.sum())
    sc.shutdown()


@pytest.mark.long
def test_a_daemonic_process_uses_threads():
    """A worker of multiprocessing.Pool may start no processes; a call works all the same."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_within, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    assert ours.recv() == -4
    process.join()
    process.close()
    ours.close()


def test_a_threads_pool_in_a_forked_child_says_so(pools):
    pool = pools["threads"]
    pid = os.fork()
    if pid == 0:
        try:
            sc.parallel_apply(np.negative, np.ones(4), pool=pool)
        except sc.errors.ForkedPoolError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.long
def test_exit_does_not_wait_for_a_daemon_thread():
    """A call that does not end, in a thread that nobody waits for: its workers are killed."""
    done = run(
        """
        import threading, time
        import numpy as np, shmcompute as sc
        arr = sc.SharedArray(np.zeros(2), storage="shm")
        def kernel(x):
            x += 1
            time.sleep(3600)
        def call():
            try:
                sc.parallel_apply(kernel, arr)
            except sc.errors.ShmComputeError:
                pass
        threading.Thread(target=call, daemon=True).start()
        while arr[0] == 0 or arr[1] == 0:
            time.sleep(0.001)
        print(arr.name)
        """
    )
    assert not os.path.exists(f"/dev/shm/{done.stdout.strip()}")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
@pytest.mark.parametrize("backend", ["processes", "threads"])
def test_pinned_workers_have_a_core_each(backend):
    def where(x):
        x[:] = -1 if len(os.sched_getaffinity(0)) > 1 else next(iter(os.sched_getaffinity(0)))

    allowed = sorted(os.sched_getaffinity(0))
    with sc.Pool(2, backend=backend, pin=True) as pool, sc.SharedArray(np.zeros(2)) as arr:
        sc.parallel_apply(where, arr, pool=pool)
        mine = -1.0 if len(allowed) > 1 and backend == "threads" else float(allowed[0])
        assert arr.array.tolist() == [mine, float(allowed[1 % len(allowed)])]


@pytest.mark.long
def test_a_fork_just_after_a_pool_was_made_harms_no_child():
    """What the thread that starts workers has locked would be locked for ever in the child."""
    done = run(
        """
        import os, time, warnings
        import numba as nb, numpy as np, shmcompute as sc

        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12's, of fork beside threads

        for delay in (0, 0.001, 0.003, 0.007):
            pool = sc.Pool(2)
            time.sleep(delay)
            if not (pid := os.fork()):
                nb.njit(lambda x: x + 1)(1)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            pool.close()
        """,
        fresh="the children are forked while a pool imports what it needs",
    )
    assert done.stdout == ""

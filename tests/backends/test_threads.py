"""Threads at a doorbell: the caller among them, forks beside them, interrupts in them."""

from __future__ import annotations

import threading
import time

import kernels
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.backends.threads import Threads
from shmcompute.system import atomic_words

pytestmark = pytest.mark.skipif(not atomic_words.has_futex(), reason="no futex here")


@pytest.mark.long
def test_a_forked_childs_end_is_nothing_to_our_threads():
    """However it drops its copy of the pool."""
    done = kernels.run(
        """
        import multiprocessing, os, warnings
        import numpy as np, numba as nb, shmcompute as sc

        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12's, of fork beside threads

        @nb.njit
        def k(x):
            for i in range(x.size):
                x[i] += 1

        def child(_):
            sc.parallel_apply(k, np.zeros(100), backend="threads")
            return 1

        x = np.zeros(100)
        sc.parallel_apply(k, x, backend="threads")
        if not (pid := os.fork()):
            child(0)
            os._exit(0)
        os.waitpid(pid, 0)
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.map(child, [0]) == [1]
        with sc.Pool(2, start_method="fork") as pool, sc.SharedArray(np.zeros(8)) as arr:
            sc.parallel_apply(lambda x: sc.parallel_apply(k, x), arr, pool=pool)
        sc.parallel_apply(k, x, backend="threads")
        print(x.sum())
        """
    )
    assert done.stdout == "200.0\n"


def test_a_call_beside_another_one_is_run_by_its_own_thread(pools):
    """It waits for nobody."""
    pool = pools["threads"]
    inside, done = threading.Event(), threading.Event()

    def first(x):
        inside.set()
        assert done.wait(60)

    caller = threading.Thread(
        target=sc.parallel_apply, args=(first, np.zeros(2)), kwargs={"pool": pool}
    )
    caller.start()
    assert inside.wait(60)
    seen = set()
    sc.parallel_apply(lambda x: seen.add(threading.current_thread()), np.zeros(8), pool=pool)
    assert seen == {threading.current_thread()}
    done.set()
    caller.join()


def test_an_error_of_an_interrupted_call_is_not_the_next_ones(monkeypatch):
    main, real, interrupts = threading.main_thread(), Threads._await, [KeyboardInterrupt()]

    def wait(self, *args):
        real(self, *args)
        if interrupts:
            raise interrupts.pop()

    def kernel(x):
        if threading.current_thread() is not main:
            raise ValueError("old")

    monkeypatch.setattr(Threads, "_await", wait)
    with sc.Pool(2, backend="threads") as pool:
        with pytest.raises(KeyboardInterrupt):
            sc.parallel_apply(kernel, np.zeros(4), pool=pool)
        sc.parallel_apply(lambda x: None, np.zeros(4), pool=pool)


def test_an_interrupt_stops_the_other_threads_before_their_next_chunk(monkeypatch):
    done = []

    def kernel(x):
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.001)  # as work would
            done.append(1)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Threads, "_await", interrupted)
    with sc.Pool(2, backend="threads") as pool, pytest.raises(KeyboardInterrupt):
        sc.parallel_apply(kernel, np.zeros(2000), chunksize=1, schedule="static", pool=pool)
    assert len(done) < 1000


@pytest.mark.long
def test_a_handler_that_raises_again_and_again_waits_for_the_threads():
    done = kernels.run(
        """
        import signal, threading, time
        import numpy as np, shmcompute as sc

        class Alarm(Exception):
            pass

        rung, written = [], []

        def ring(*_):
            rung.append(1)
            raise Alarm

        def kernel(x):
            while threading.current_thread() is threading.main_thread():
                time.sleep(0.001)  # the first one comes here
            signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
            while len(rung) < 2:
                time.sleep(0.001)
            time.sleep(0.02)
            written.append(1)

        signal.signal(signal.SIGALRM, ring)
        with sc.Pool(2, backend="threads") as pool:
            try:
                try:
                    sc.parallel_apply(kernel, np.zeros(2), pool=pool)
                finally:
                    signal.signal(signal.SIGALRM, signal.SIG_IGN)
            except Alarm:
                print(written)
        """
    )
    assert done.stdout == "[1]\n"

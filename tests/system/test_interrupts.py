"""Locks and gates whose waits are interrupted at any step."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import kernels
import leaks
import numpy as np
import pytest
from steps import interrupted

import shmcompute as sc
from shmcompute.backends.processes.fair_lock import FairLock
from shmcompute.backends.processes.poller import Wakeup
from shmcompute.system.interrupts import Latch, call_uninterrupted, call_with_lock

OURS = str(Path(sc.__file__).parent)
stepped = pytest.mark.skipif(sys.version_info[:2] == (3, 13), reason="its tracing misses steps")


@stepped
@pytest.mark.parametrize("patience", [0, 0.001, 60])
def test_a_lock_is_free_after_an_interrupt(patience):
    lock = threading.Lock()

    def check():
        assert not lock.locked()

    assert interrupted(lambda: call_with_lock(lock, patience, str), check) > 5


def test_work_is_told_whether_it_has_the_lock():
    lock = threading.Lock()
    assert call_with_lock(lock, 1, lambda taken: (taken, lock.locked())) == (True, True)
    with lock:
        assert call_with_lock(lock, 0, lambda taken: taken) is False
        assert call_with_lock(lock, 0.01, lambda taken: taken) is False
        assert lock.locked()


def test_what_work_raises_comes_with_the_lock_free():
    lock = threading.Lock()
    with pytest.raises(ZeroDivisionError):
        call_with_lock(lock, 1, lambda taken: 1 // (not taken))
    assert not lock.locked()


@stepped
def test_a_gate_is_passed_whoever_was_interrupted():
    gates = [Latch()]

    def wait():
        gates[0].wait(0.001)

    def check():
        gates[0].open()
        assert gates[0].wait(0)
        gates[0] = Latch()

    assert interrupted(wait, check) > 5


def test_a_gate_opens_once_for_all():
    gate = Latch()
    assert not gate.wait(0)
    passed = []
    threads = [threading.Thread(target=lambda: passed.append(gate.wait())) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.open()
    gate.open()
    for thread in threads:
        thread.join()
    assert passed == [True] * 4
    assert gate.wait(0)


@stepped
def test_a_turn_is_over_after_an_interrupt():
    fair_lock = FairLock(Wakeup())

    def check():
        assert not fair_lock.lock.locked()
        assert not fair_lock.wanted

    assert interrupted(lambda: fair_lock.call(60, str), check) > 20


@stepped
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of finalizers
def test_the_lock_of_an_array_is_had_again_after_an_interrupt():
    """When the exception is gone, which keeps the lock object."""
    with sc.SharedArray.zeros(1) as arr:

        def work():
            with arr.lock(timeout=5):
                pass

        before = leaks.descriptors()
        assert interrupted(work, lambda: None, within=OURS) > 20
        work()
        # As in all of Python, an interrupt between its opening and any note of it loses one.
        for descriptor, _ in leaks.descriptors() - before:
            os.close(descriptor)


@stepped
def test_results_come_after_an_interrupt_or_are_told_to_be_lost(pools):
    """They do not seem to have come to their end."""
    results, lost = [None], []

    def ask():
        results[0].next(60)

    def check():
        try:
            for _ in range(100):
                assert results[0].next(60) == 0
        except RuntimeError as error:
            lost.append(error)
            results[0] = start()

    def start():
        return pools["threads"].imap(abs, iter(int, 1))

    results[0] = start()
    taken = interrupted(ask, check, within=OURS)
    assert taken > 20
    assert 0 < len(lost) < taken


@pytest.mark.long
@stepped
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of finalizers
def test_a_pool_is_free_after_an_interrupt():
    """At each third step of a call that is bound and sent."""
    with sc.Pool(2, start_method="forkserver") as pool, sc.SharedArray(np.zeros(8)) as arr:

        def fill(x, value):  # which goes by value, so each call is a new one
            x[:] = value

        def call():
            sc.parallel_apply(fill, arr, 1.0, pool=pool.ready())

        def check():
            assert not pool.running._lock.locked()
            assert not pool.running._fair_lock.wanted

        call()
        assert interrupted(call, check, every=3, within=OURS) > 50
        call()
        np.testing.assert_array_equal(arr.array, 1.0)


def test_what_is_called_uninterrupted_returns_before_an_interrupt_is_raised():
    returned = []

    def interrupt(*_):
        raise TimeoutError

    def work():
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        threading.Event().wait(0.05)
        returned.append(threading.get_ident())

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(TimeoutError):
            call_uninterrupted(work)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert returned
    assert returned[0] != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        call_uninterrupted(lambda: 1 // 0)


@pytest.mark.parametrize("insists", [False, True])
def test_a_second_interrupt_waits_for_what_insists(insists):
    rung, returned, done = [], [], threading.Event()

    def interrupt(*_):
        rung.append(1)
        raise TimeoutError

    def work():
        while len(rung) < 3 - (not insists):
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            done.wait(0.01)
        done.wait(0.02)
        returned.append(1)
        done.set()

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(TimeoutError):
            call_uninterrupted(work, insists=insists)
        assert bool(returned) == insists
    finally:
        signal.signal(signal.SIGALRM, before)
    assert done.wait(60)


def test_chunks_are_put_back_whole_whatever_is_raised_meanwhile():
    done = kernels.run(
        """
        import os, signal, time
        import numpy as np, shmcompute as sc
        from shmcompute.plans import Journal
        from shmcompute.system import context

        rung, real = [], Journal.restore

        def interrupt(*_):
            rung.append(1)
            raise KeyboardInterrupt

        def restore(self, number, parts):
            while len(rung) < 3:
                os.kill(os.getpid(), signal.SIGALRM)
                time.sleep(0.001)
            real(self, number, parts)

        def kernel(x):
            x[: x.size // 2] += 1
            if context.worker == 1:
                raise ValueError("half done")
            time.sleep(0.01)
            raise ValueError("half done, too")

        Journal.restore = restore
        signal.signal(signal.SIGALRM, interrupt)
        with sc.Pool(2, start_method="fork") as pool, sc.SharedArray(np.zeros(64)) as arr:
            try:
                sc.parallel_apply(kernel, arr, pool=pool, retries=1, chunksize=8)
            except KeyboardInterrupt:
                print(arr.array.any())
        """
    )
    assert done.stdout == "False\n"


@pytest.mark.long
def test_workers_whose_start_is_interrupted_are_started_whole():
    """A start that is given up half-way would print, here and in the child."""
    done = kernels.run(
        """
        import os, random, signal
        from contextlib import suppress
        from multiprocessing import active_children
        import numpy as np, shmcompute as sc
        from shmcompute.errors import WorkerLostError

        def interrupt(*_):
            raise KeyboardInterrupt

        random.seed(5)
        with sc.Pool(2, start_method="forkserver") as pool, sc.SharedArray(np.zeros(64)) as arr:
            step = sc.plan(lambda x: x.fill(1), arr, pool=pool.ready())
            step()
            signal.signal(signal.SIGALRM, interrupt)
            for _ in range(40):
                for child in active_children()[:1]:
                    with suppress(ProcessLookupError):  # dead, as its server is about to tell
                        os.kill(child.pid, signal.SIGKILL)
                try:
                    # Again, should it come in a finalizer, where Python drops it.
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.01), 5)
                    while True:
                        try:
                            step()
                        except WorkerLostError:
                            pass
                except KeyboardInterrupt:
                    pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            while arr.array.sum() != 128:
                try:
                    sc.parallel_apply(lambda x: x.fill(2), arr, pool=pool)
                except WorkerLostError:  # the last that was killed
                    pass
        """,
        check=False,  # an interrupt in a finalizer prints, and can't be helped
    )
    assert done.returncode == 0, done.stderr
    assert "forkserver.py" not in done.stderr
    assert "Bad file descriptor" not in done.stderr

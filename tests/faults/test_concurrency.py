"""Threads, forks, signals and closing, at any time: no deadlock, no lie."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import kernels
import numpy as np
import pytest
from harness import made, works

import shmcompute as sc
from shmcompute.errors import ClosedError, ForkedPoolError, WorkerLostError


@pytest.mark.long
def test_sixteen_threads_share_a_pool_some_of_whose_workers_die(mortal):
    """Each call is right, or says that a worker was lost; the pool works in the end."""

    def work(number):
        lost = 0
        with sc.SharedArray(np.zeros(64)) as arr:
            for turn in range(3):
                arr[:] = number
                dies = number % 8 == 0 and turn == 1
                try:
                    if dies:
                        sc.parallel_apply(kernels.die, arr, int(signal.SIGKILL), pool=mortal)
                    sc.parallel_apply(kernels.affine, arr, 1.0, 1.0, pool=mortal)
                    np.testing.assert_array_equal(arr.array, number + 1)
                except WorkerLostError:
                    assert dies
                    lost += 1
        return lost

    with ThreadPoolExecutor(16) as executor:
        assert sum(executor.map(work, range(16))) == 2
    works(mortal)


def test_calls_within_calls_within_calls(any_pool):
    """Each runs where it is."""

    def kernel(x):
        import shmcompute

        def middle(y):
            shmcompute.parallel_apply(inner, y)

        def inner(z):
            z += 1

        shmcompute.parallel_apply(middle, x)

    with sc.SharedArray(np.zeros(6)) as arr:
        sc.parallel_apply(kernel, arr, pool=any_pool)
        np.testing.assert_array_equal(arr.array, np.ones(6))


class Held:
    """A call in a thread of its own, which is inside its kernel until it is let go."""

    def __init__(self, pool, arr):
        self._arr = arr
        self._executor = ThreadPoolExecutor(1)
        self._done = self._executor.submit(sc.parallel_apply, _waits, arr, pool=pool)
        while arr.array.min() == 0 and not self._done.done():
            pass

    def let_go(self):
        self._arr[:] = 2
        return self.end()

    def end(self):
        try:
            return self._done.result()
        finally:
            self._executor.shutdown()


def _waits(x):
    x[:] = 1
    while x[0] == 1:
        pass
    x[:] = 3


@pytest.mark.long
def test_a_pool_that_is_closed_during_a_call_waits_for_it(mortal):
    """Who waits for the pool is told that it is closed."""
    with sc.SharedArray(np.zeros(2)) as arr, sc.SharedArray(np.zeros(2)) as other:
        held = Held(mortal, arr)
        with ThreadPoolExecutor(2) as executor:
            waiting = executor.submit(
                sc.parallel_apply, kernels.affine, other, 1.0, 1.0, pool=mortal
            )
            closing = executor.submit(mortal.close)
            while repr(mortal) != "Pool(backend='processes', closed)":
                pass
            held.let_go()
            closing.result()
            with suppress(ClosedError):  # it may have been the first to get in
                waiting.result()
        np.testing.assert_array_equal(arr.array, 3)


@pytest.mark.long
def test_an_array_that_is_closed_during_a_call_is_worked_on_to_the_end(mortal):
    arr = sc.SharedArray(np.zeros(2), storage="shm")
    view = arr.array
    held = Held(mortal, arr)
    arr.close()
    view[:] = 2
    held.end()
    np.testing.assert_array_equal(view, 3)
    assert not os.path.exists(f"/dev/shm/{arr.name}")
    works(mortal)


@pytest.mark.long
def test_a_child_that_is_forked_during_a_call_works_with_a_pool_of_its_own(mortal):
    with sc.SharedArray(np.zeros(2)) as arr:
        held = Held(mortal, arr)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12's, of fork beside threads
            pid = os.fork()
        if not pid:
            _in_a_child(mortal)
        assert os.waitpid(pid, 0)[1] == 0
        held.let_go()
        np.testing.assert_array_equal(arr.array, 3)
    works(mortal)


def _in_a_child(pool):
    code = 1
    try:
        with suppress(ForkedPoolError):
            works(pool)
            os._exit(2)
        with sc.Pool(2, start_method="fork") as own:
            works(own)
        code = 0
    finally:
        os._exit(code)


def test_an_event_loop_may_wait_for_calls_in_threads(mortal):
    """Also one that is no longer waited for ends by itself."""

    async def call(arr, number):
        await asyncio.to_thread(
            sc.parallel_apply, kernels.affine, arr, 1.0, float(number), pool=mortal
        )
        return arr.array.sum()

    async def main(arrays):
        given_up = asyncio.create_task(call(arrays[0], 0))
        await asyncio.sleep(0)
        given_up.cancel()
        return await asyncio.gather(*(call(arr, n) for n, arr in enumerate(arrays)))

    arrays = [sc.SharedArray(np.zeros(10)) for _ in range(8)]
    assert asyncio.run(main(arrays)) == [10 * n for n in range(8)]
    for arr in arrays:
        arr.close()


@pytest.fixture
def handled():
    """Set a handler for the length of a test."""
    before = {}

    def handle(number, handler):
        before[number] = signal.signal(number, handler)

    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


def _lives_through_deaths(pool):
    with sc.SharedArray(np.zeros(4)) as arr:
        for number in (signal.SIGKILL, signal.SIGTERM):
            with pytest.raises(WorkerLostError) as caught:
                sc.parallel_apply(kernels.die, arr, int(number), pool=pool)
            assert caught.value.exitcode in (None, -number, 255)
            works(pool)


@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_children_may_be_ignored(handled, method, waiting, when):
    """SIGCHLD ignored: the kernel reaps at once, and nobody learns an exit code."""
    if when == "before":
        handled(signal.SIGCHLD, signal.SIG_IGN)
    with made(method, waiting) as pool:
        works(pool)
        if when == "after":
            handled(signal.SIGCHLD, signal.SIG_IGN)
        _lives_through_deaths(pool)


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_children_may_be_reaped_by_others(handled, method, waiting):
    def reap(*_):
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    with made(method, waiting) as pool:
        works(pool)
        handled(signal.SIGCHLD, reap)
        _lives_through_deaths(pool)


@pytest.mark.long
def test_handlers_of_the_program_are_not_the_workers(handled, waiting):
    """A worker that is told to terminate does; what the program would do then, it alone does."""
    handled(signal.SIGTERM, lambda *_: os._exit(9))
    with made("fork", waiting) as pool:
        works(pool)
        _lives_through_deaths(pool)


def test_a_program_with_a_wakeup_descriptor_hears_its_own_signals_only(waiting):
    """As asyncio's: what a forked worker gets is not told to the program's event loop."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        ours.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            with made("fork", waiting) as pool, sc.SharedArray(np.zeros(2)) as arr:
                sc.parallel_apply(_signals_itself, arr, pool=pool)
        finally:
            signal.set_wakeup_fd(before)
        heard = b""
        with suppress(BlockingIOError):
            heard = ours.recv(100)
        assert signal.SIGUSR1 not in heard


def _signals_itself(x):
    signal.signal(signal.SIGUSR1, lambda *_: None)
    os.kill(os.getpid(), signal.SIGUSR1)

"""Waiting and locking that Ctrl-C interrupts soon, and never leaves locked.

Python raises `KeyboardInterrupt` in the main thread between two bytecode instructions, so also
between ``lock.acquire()`` and the ``try`` that follows it. And a signal ends only a system call
that it finds running: one that comes a moment earlier, or to another thread, is noticed when the
call returns. So everything here waits in slices of `SLICE` seconds.
"""

from __future__ import annotations

import _thread
import contextvars
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

SLICE = 0.1  # seconds


def call_with_lock(
    lock: threading.Lock | threading.RLock, timeout: float, function: Callable[[bool], T]
) -> T:
    """Return ``function(locked)``; `locked`: whether the lock was taken within `timeout` seconds.

    A ``with`` statement takes no timeout. A context manager written in Python is no help: an
    interrupt at its first or last instruction leaves the lock taken.

    Parameters
    ----------
    lock : threading.Lock or threading.RLock
    timeout : float
        Seconds to wait for the lock at most; `math.inf`: as long as it takes.
    function : callable
        Called once, with or without the lock.
    """
    deadline = time.monotonic() + timeout
    locked: list[bool] = []
    try:
        while True:
            left = max(0.0, deadline - time.monotonic())
            # One instruction takes the lock and notes it: no interrupt comes in between.
            locked[:] = map(lock.acquire, (True,), (min(SLICE, left),))
            if locked[0] or not left:
                break
        return function(locked[0])
    finally:
        # No call before the release: an interrupt may come after any, and leave the lock taken.
        if locked and locked[0]:
            lock.release()


def in_call(held: Callable[[FrameType], bool]) -> bool:
    """Whether this thread is within a call, other than the asker's, that `held` recognises.

    Its frame goes on below when the handler of a signal, or a destructor, has cut it short.
    Who would wait for what that call holds would wait for ever.
    """
    frame = sys._getframe(1)
    while (caller := frame.f_back) is not None:
        if held(caller):
            return True
        frame = caller
    return False


def holds(frame: FrameType, lock: threading.Lock | threading.RLock) -> bool:
    """Whether that is the frame of a `call_with_lock` which has the lock."""
    if frame.f_code is not call_with_lock.__code__:
        return False
    return frame.f_locals["lock"] is lock and frame.f_locals.get("locked") == [True]


class Latch:
    """`threading.Event` for threads that Ctrl-C may interrupt; it opens once.

    An Event is a lock and a list in Python code: an interrupt at the wrong instruction of its
    ``wait()`` or ``set()`` leaves it locked, and the next ``set()`` hangs.
    """

    def __init__(self) -> None:
        self._closed = [True]
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let all waiters go on, from now on; more than once does nothing."""
        with suppress(IndexError):
            self._closed.pop()
            self._lock.release()

    def wait(self, timeout: float = math.inf) -> bool:
        """Return when it is open, or after `timeout` seconds; whether it is open."""
        return call_with_lock(self._lock, timeout, bool)


def call_uninterrupted(
    function: Callable[[], T],
    *,
    insists: bool = False,
    interrupted: Callable[[], object] | None = None,
) -> T:
    """Call `function` where no handler of a signal runs: in a thread, if this is the main one.

    What an interrupt raises meanwhile waits until the function has returned; a second one does not,
    unless it `insists`. The first one is told by `interrupted`.

    A mask of signals is no help: the system hands one to any thread that takes it, and Python runs
    the handler in the main thread all the same.
    """
    if threading.get_ident() != threading.main_thread().ident or sys.is_finalizing():
        return function()  # at the interpreter's end no other thread runs any more
    results: list[T] = []
    errors: list[BaseException] = []
    returned = Latch()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            results.append(context.run(function))
        except BaseException as error:  # noqa: BLE001  # it is raised below
            errors.append(error)
        finally:
            _leave_no_dummy()
            returned.open()

    wait_on(returned, insists, interrupted, work)
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()  # an error refers to this frame: let the frame not refer to it
    return results[0]


def _leave_no_dummy() -> None:
    """Take this thread out of `threading`'s list, where it is if anyone asked who he is.

    It was not started by `threading`, which before Python 3.13 would keep it there for ever.
    """
    active = getattr(threading, "_active", {})
    if isinstance(active.get(threading.get_ident()), getattr(threading, "_DummyThread", ())):
        active.pop(threading.get_ident(), None)


def wait_on(
    latch: Latch,
    insists: bool,
    interrupted: Callable[[], object] | None = None,
    work: Callable[[], None] | None = None,
) -> None:
    """Wait until it is open; what interrupts that is raised then, a second one at once.

    A thread is started first for `work`, if there is some that opens it.
    """
    interrupt: BaseException | None = None
    begun: list[int] = []
    while True:
        try:
            if work is not None and not begun:
                _begin(begun, work)
            latch.wait()
            break
        except BaseException as error:
            if interrupt is not None and not insists:
                raise
            if interrupt is None and interrupted is not None:
                interrupted()
            interrupt = interrupt or error
    try:
        if interrupt is not None:
            raise interrupt
    finally:
        del interrupt  # it refers to this frame: let the frame not refer to it


def _begin(begun: list[int], work: Callable[[], None]) -> None:
    try:
        # One instruction starts it and notes it. Not `threading.Thread`, whose start() waits for an
        # Event: see `Latch`.
        begun.extend(map(_thread.start_new_thread, (work,), ((),)))
    except RuntimeError:  # no thread to be had
        begun.append(0)
        work()


def wait(objects: Sequence[Any], timeout: float | None = None) -> list[Any]:
    """`multiprocessing.connection.wait`, in slices."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = SLICE if deadline is None else min(SLICE, deadline - time.monotonic())
        ready = connection.wait(objects, max(0.0, left))
        if ready or (deadline is not None and time.monotonic() >= deadline):
            return ready


def deadline_of(timeout: float) -> float:
    """When a wait of so many seconds that starts now is over."""
    return time.monotonic() + timeout


def seconds_to(deadline: float | None) -> float | None:
    """How long there is to wait; None: as long as it takes."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())

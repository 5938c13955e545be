"""`FairLock`: the lock of a pool's workers; calls and the dispatcher of tasks take turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from shmcompute.backends.processes.poller import Wakeup
from shmcompute.system.interrupts import Latch, call_with_lock, in_call

PATIENCE = 1.0  # seconds that the dispatcher waits for a call that it lets go first


class FairLock:
    """One lock, and a way for each side to let the other go first.

    A lock alone would starve one of them: who has just released it is the first to take it again.
    So a call that waits says so, and the dispatcher stops handing out tasks; and while the
    dispatcher waits, calls that come wait at a latch until it has the lock.

    Parameters
    ----------
    wakeup : Wakeup
        Has the dispatcher look, if it has the lock.

    Attributes
    ----------
    lock : threading.Lock
    dispatcher_waits : Latch or None
        Closed while the dispatcher waits for the lock.
    dispatching : bool
        Whether it is the dispatcher that has the lock.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self.lock = threading.Lock()
        self.dispatcher_waits: Latch | None = None
        self.dispatching = False
        self._wakeup = wakeup
        # Calls that wait, in their order; each opens when it does no more.
        self._waiting: dict[Latch, None] = {}

    @property
    def wanted(self) -> bool:
        """Whether a call waits."""
        return bool(self._waiting)

    def waits_for_itself(self) -> bool:
        """Whether the dispatcher makes room for a call that this thread has cut short."""
        return self.wanted and in_call(self._is_called)

    def _is_called(self, frame: FrameType) -> bool:
        return frame.f_code is FairLock.call.__code__ and frame.f_locals["self"] is self

    def call(self, timeout: float, function: Callable[[bool], None]) -> None:
        """Call ``function(locked)``; `locked`: whether the lock came within `timeout` seconds."""
        if not timeout:  # this may be within a garbage collection, which must wait for nobody
            call_with_lock(self.lock, 0, function)
            return
        deadline = time.monotonic() + timeout
        if (latch := self.dispatcher_waits) is not None:  # let the dispatcher go first,
            latch.wait(timeout)
        served = Latch()  # then have it make room

        def begin(locked: bool) -> None:
            self._waiting.pop(served, None)
            served.open()
            function(locked)

        try:
            self._waiting[served] = None
            self._wakeup.wake()
            call_with_lock(self.lock, max(0.0, deadline - time.monotonic()), begin)
        finally:
            # Before any other call, as in `call_with_lock`: else the dispatcher made room for ever.
            self._waiting.pop(served, None)
            served.open()

    @contextmanager
    def held_by_dispatcher(self) -> Iterator[None]:
        """Hold the lock, after the calls that wait now and before those that come."""
        for served in list(self._waiting):
            served.wait(PATIENCE)
        self.dispatcher_waits = latch = Latch()
        try:
            self.lock.acquire()
        finally:
            self.dispatcher_waits = None
            latch.open()
        self.dispatching = True
        try:
            yield
        finally:
            self.dispatching = False
            self.lock.release()

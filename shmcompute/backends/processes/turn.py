"""`Turn`: whose turn it is with the workers of a pool, a call's or the desk's."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

from shmcompute.backends.processes.waiting import SLICE
from shmcompute.backends.processes.wake import Wake

PATIENCE = 1.0  # seconds that the desk waits for a call that it lets go first


class Turn:
    """One lock, and a way for each side to let the other go first.

    A lock alone would starve one of them: who has just let go of it is the first to take it again.
    So a call that waits says so, and the desk stops handing out tasks; and while the desk waits,
    calls that come stand at its gate.

    Parameters
    ----------
    wake : Wake
        Has the desk look, if it has its turn.
    """

    def __init__(self, wake: Wake) -> None:
        self.lock = threading.Lock()
        self.gate: threading.Event | None = None  # closed while the desk waits for its turn
        self._wake = wake
        self._calls: list[threading.Event] = []  # of those that wait, set when they do no more

    @property
    def wanted(self) -> bool:
        """Whether a call waits."""
        return bool(self._calls)

    @contextmanager
    def of_call(self, patience: float) -> Iterator[bool]:
        """Hold the lock, if it comes within `patience` seconds (-1: whenever); whether it did."""
        until = math.inf if patience < 0 else time.monotonic() + patience
        taken: list[bool] = []
        try:
            # Without patience we may be in a garbage collection, which must wait for nobody.
            with self._waiting(until) if patience else nullcontext():
                left = _left(until)
                while not any(taken) and (left or not taken):
                    # One step for the interpreter: whenever an interrupt comes, `taken` is true.
                    taken[:] = map(self.lock.acquire, (True,), (min(SLICE, left),))
                    left = _left(until)
            yield any(taken)
        finally:
            if any(taken):
                self.lock.release()

    @contextmanager
    def _waiting(self, until: float) -> Iterator[None]:
        """Let the desk go first, then have it make room."""
        gate = self.gate
        while gate is not None and not gate.wait(min(SLICE, left := _left(until))) and left:
            pass
        waits = threading.Event()
        try:
            self._calls.append(waits)
            self._wake.ring()
            yield
        finally:
            with suppress(ValueError):
                self._calls.remove(waits)
            waits.set()

    @contextmanager
    def of_desk(self) -> Iterator[None]:
        """Hold the lock, after the calls that wait now and before those that come."""
        for waits in list(self._calls):
            waits.wait(PATIENCE)
        self.gate = gate = threading.Event()
        try:
            self.lock.acquire()
        finally:
            self.gate = None
            gate.set()
        try:
            yield
        finally:
            self.lock.release()


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())

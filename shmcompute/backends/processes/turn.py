"""`Turn`: whose turn it is with the workers of a pool, a call's or the desk's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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
        taken: list[bool] = []
        try:
            with self._waiting(patience) as left:
                # One step for the interpreter: whenever an interrupt comes, `taken` is true to it.
                taken.extend(map(self.lock.acquire, (True,), (left,)))
            yield taken[0]
        finally:
            if taken and taken[0]:
                self.lock.release()

    @contextmanager
    def _waiting(self, patience: float) -> Iterator[float]:
        """Let the desk go first, then have it make room; how many seconds are left."""
        if patience == 0:  # perhaps in a garbage collection, which must wait for nobody
            yield 0
            return
        until = time.monotonic() + patience
        gate = self.gate
        if gate is not None:
            gate.wait(None if patience < 0 else patience)
        waits = threading.Event()
        try:
            self._calls.append(waits)
            self._wake.ring()
            yield -1 if patience < 0 else max(0.0, until - time.monotonic())
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

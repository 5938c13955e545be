"""`Turn`: whose turn it is with the workers of a pool, a call's or the desk's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from shmcompute.backends.processes.wake import Wake
from shmcompute.gate import Gate
from shmcompute.holding import holding

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
        self.gate: Gate | None = None  # closed while the desk waits for its turn
        self._wake = wake
        # Those that wait, in their order; each opens when it does no more.
        self._calls: dict[Gate, None] = {}

    @property
    def wanted(self) -> bool:
        """Whether a call waits."""
        return bool(self._calls)

    def of_call(self, patience: float, work: Callable[[bool], None]) -> None:
        """Call `work(taken)` with the lock, if it comes within `patience` seconds, or without."""
        if not patience:  # we may be in a garbage collection, which must wait for nobody
            holding(self.lock, 0, work)
            return
        until = time.monotonic() + patience
        if (gate := self.gate) is not None:  # let the desk go first,
            gate.wait(patience)
        served = Gate()  # then have it make room

        def begin(taken: bool) -> None:
            self._calls.pop(served, None)
            served.open()
            work(taken)

        try:
            self._calls[served] = None
            self._wake.ring()
            holding(self.lock, max(0.0, until - time.monotonic()), begin)
        finally:
            # Before any other call, as in `holding`: the desk would make room for ever.
            self._calls.pop(served, None)
            served.open()

    @contextmanager
    def of_desk(self) -> Iterator[None]:
        """Hold the lock, after the calls that wait now and before those that come."""
        for served in list(self._calls):
            served.wait(PATIENCE)
        self.gate = gate = Gate()
        try:
            self.lock.acquire()
        finally:
            self.gate = None
            gate.open()
        try:
            yield
        finally:
            self.lock.release()

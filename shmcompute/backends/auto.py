"""`Auto`: makes and keeps workers of every kind; `tuning.choose` says which of them a call gets."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar

from shmcompute.backends.base import Backend, Report
from shmcompute.backends.serial import Serial
from shmcompute.chunking import Values
from shmcompute.errors import ClosedError
from shmcompute.plans import Plan
from shmcompute.system.interrupts import deadline_of
from shmcompute.tasks import Function

# Chunks that are called from Python before a serial call goes by machine code: fewer than it is
# judged by. Threads make theirs at once.
SOON = 100


class OneKind(Protocol):
    """A pool of one kind."""

    @property
    def running(self) -> Backend: ...
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


P = TypeVar("P", bound=OneKind)


class Auto(Backend, Generic[P]):
    """Makes each pool when it is first needed: nobody starts what no call gets.

    Tasks go to the last of `kinds`: isolated workers, where there may be some. A plan that nobody
    chose for is run by threads.

    Parameters
    ----------
    workers : int
    kinds : tuple of str
        The backends that a call may get.
    make : callable
        A new pool of that kind.
    starts : callable
        The seconds that it takes to start workers of that kind.

    """

    threaded = True

    def __init__(
        self,
        workers: int,
        kinds: tuple[str, ...],
        make: Callable[[str], P],
        starts: Callable[[str], float],
    ) -> None:
        self.workers = workers
        self.kinds = kinds
        self._lender: Callable[[str], P] | None = None
        self._make = make
        self._starts = starts
        self._pools: dict[str, P] = {}  # by kind; with a lender, the latest that it has lent
        self._own: list[P] = []
        self._making = threading.RLock()  # reentrant, for handlers of signals

    def borrow(self, pool_of: Callable[[str], P], starts: Callable[[str], float]) -> None:
        """Use another's pools where these have workers, and leave their end to it."""
        self._lender, self._starts = pool_of, starts

    def pool(self, kind: str) -> P:
        """The pool of that kind."""
        with self._making:
            if self._lender is not None and kind != "serial":
                self._pools[kind] = self._lender(kind)  # a new one, if its owner has closed it
            elif kind not in self._pools:
                self._pools[kind] = made = self._make(kind)
                if isinstance(made.running, Serial):
                    made.running.pays = SOON
                self._own.append(made)
            return self._pools[kind]

    def made(self, kind: str) -> P | None:
        """The same, if there is one."""
        return self._pools.get(kind)

    def starts(self) -> Mapping[str, float]:
        """The backends that a call may get, and the seconds that each takes to start, now."""
        made = self._pools if self._lender is None else ()
        return {kind: 0.0 if kind in made else self._starts(kind) for kind in self.kinds}

    def run(
        self, plan: Plan, values: Values, timeout: float | None, report: Report | None = None
    ) -> None:
        self.pool("threads").running.run(plan, values, timeout, report)

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        return self.pool(self.kinds[-1]).running.submit(function, args, keywords)

    def within_call(self) -> bool:
        return any(map(_is_within_call, list(self._pools.values())))

    def ready(self, timeout: float | None = None) -> None:
        """Start workers of all kinds, so that calls choose freely."""
        deadline = None if timeout is None else deadline_of(timeout)
        for kind in self.kinds:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            self.pool(kind).running.ready(left)

    @property
    def pids(self) -> list[int]:
        """Those of the worker processes, once a call or a task has started them."""
        pool = self._pools.get("processes")
        return [] if pool is None else pool.running.pids

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        for pool in list(self._own):
            pool.shutdown(wait, cancel_futures=cancel_futures)

    def end_workers(self, signal: int) -> None:
        for pool in [pool for pool in self._own if pool.running.shared]:
            pool.running.end_workers(signal)
        self.shutdown(wait=False, cancel_futures=True)

    def close(self, *, wait: bool = True) -> None:
        if wait:  # else the program ends, and each pool by itself
            self.shutdown(wait=True, cancel_futures=False)


def _is_within_call(pool: OneKind) -> bool:
    try:
        return pool.running.within_call()
    except ClosedError:
        return False


def doorbell_is_loaded() -> bool:
    """Whether threads that run plans would begin at once."""
    doorbell = sys.modules.get("shmcompute.backends.doorbell")
    return doorbell is not None and doorbell.prepared()

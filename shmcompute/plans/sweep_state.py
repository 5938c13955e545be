"""`Sweeps`: what a plan has beside its links if it repeats itself, and how it is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from shmcompute.arrays import SharedArray
from shmcompute.chunking import Chunk
from shmcompute.kernels import NativeCall, NativePlan, NeedsPython, sweeping
from shmcompute.plans.sweep_pace import Pace
from shmcompute.plans.sweep_schedule import Schedule
from shmcompute.system.unpatched import threading
from shmcompute.typing import Array

LINE = 16  # words: at such a multiple stands what workers write side by side


class StateMemory:
    """So many words that all workers see, of which one run at a time has the use.

    Attributes
    ----------
    words : ndarray
    used : Lock
        Who runs sweeps holds it.
    """

    def __init__(self, count: int, shared: bool) -> None:
        self._owner = SharedArray.zeros(count, np.int64) if shared else None
        self.words = _aligned(count) if self._owner is None else self._owner.array
        self.used = threading.Lock()

    def __getstate__(self) -> Any:
        return {"words": self.words}  # a worker neither owns it nor decides who runs


def _aligned(count: int) -> Array:
    """So many words, which begin where a cache line does."""
    memory = np.zeros(count + LINE, np.int64)
    skip = -memory.ctypes.data // memory.itemsize % LINE
    return memory[skip : skip + count]


@contextmanager
def _halted(state: Array, timeout: float | None) -> Iterator[None]:
    """Halt what is run in here after so many seconds."""
    if timeout is None:
        yield
        return
    timer = threading.Timer(min(timeout, threading.TIMEOUT_MAX), sweeping.halt, [state])
    timer.daemon = True
    try:
        timer.start()
        yield
    finally:
        timer.cancel()
        if timer.ident is not None:
            timer.join()  # before others have the use of the state


@dataclass(frozen=True, eq=False)
class Sweeps:
    """Who does what and when, and how far all have come.

    Parameters
    ----------
    schedule : Schedule
    memory : StateMemory
        What workers tell each other by: see `kernels.sweeping`.
    spin : int
        Iterations that who waits spins before it sleeps.
    """

    schedule: Schedule
    memory: StateMemory
    spin: int = 0

    @property
    def state(self) -> Array:
        return self.memory.words

    def run(
        self,
        times: int,
        first: int,
        run_once: Callable[[], None],
        cost: int,
        timeout: float | None,
    ) -> None:
        """Go through so many sweeps, some phases at a time.

        Parameters
        ----------
        first : int
            The number of the first sweep.
        run_once : callable
            Has the workers go as far as the goal.
        cost : int
            Bytes that a sweep goes through, by which the first goal is set.
        timeout : float or None
            Seconds after which who runs its own share stops, so that `run_once` can raise.
        """
        phases = self.schedule.phases(times)
        pace = Pace(phases, times * cost, self.schedule.parts)
        self.begin(times, first)
        with _halted(self.state, timeout):
            while (ended := self.ended()) < phases:
                self.aim(min(phases, ended + pace.some), alone=pace.alone)
                began = time.perf_counter()
                run_once()
                pace.ran(self.ended() - ended, time.perf_counter() - began)

    @property
    def typical(self) -> tuple[Chunk, ...]:
        """Chunks whose types, and room, are those of any range.

        Machine code reads the shape of what it is given; only of a length of 1, and of the whole,
        has Numba types of their own.
        """
        length = self.schedule.edges[-1]
        widest = max(2, min(self.schedule.slab, length - 1))
        return (0, widest), (length - widest, length)

    def native(self, calls: Sequence[NativeCall | NeedsPython]) -> NativePlan | None:
        """What machine code goes by, if it can call all kernels."""
        known = [call for call in calls if isinstance(call, NativeCall)]
        if len(known) < len(calls):
            return None
        return sweeping.program(known, self.schedule, self.state)

    def begin(self, times: int, first: int = 0) -> None:
        """Make ready for so many sweeps, of which this is the number of the first."""
        sweeping.begin(self.state, times, first=first, spin=self.spin)

    def aim(self, phases: int, *, alone: bool = False) -> None:
        """Let the next run go so far; `alone`: by the worker of the first part."""
        sweeping.set_goal(self.state, phases)
        sweeping.set_alone(self.state, alone)

    def ended(self) -> int:
        """Phases that all parts have ended."""
        return sweeping.ended(self.state)

    def alone(self) -> None:
        """Have the next run be done by the worker of the first part."""
        sweeping.set_alone(self.state, True)

    def at_work(self, part: int) -> int:
        """The part that is being run by the worker of this one: it may do all of them."""
        return sweeping.at_work(self.state, part)

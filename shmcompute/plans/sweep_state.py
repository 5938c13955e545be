"""`Sweeps`: what a plan has beside its links if it repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shmcompute.chunking import Chunk
from shmcompute.kernels import NativeCall, NativePlan, NeedsPython, sweeping
from shmcompute.plans.sweep_schedule import Schedule
from shmcompute.typing import Array


@dataclass(frozen=True, eq=False)
class Sweeps:
    """Who does what and when, and how far all have come.

    Parameters
    ----------
    schedule : Schedule
    state : ndarray
        Words that all workers see: see `kernels.sweeping`.
    spin : int
        Iterations that who waits spins before it sleeps.
    """

    schedule: Schedule
    state: Array
    spin: int = 0

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

    def aim(self, phases: int) -> None:
        """Let the next run go so far."""
        sweeping.set_goal(self.state, phases)

    def ended(self) -> int:
        """Phases that all parts have ended."""
        return sweeping.ended(self.state)

    def alone(self) -> None:
        """Have no part wait for another: they are run one after another."""
        sweeping.alone(self.state)

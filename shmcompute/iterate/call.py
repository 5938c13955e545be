"""`Call`: what is repeated, as one plan of many sweeps in machine code, or as plans of one each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from shmcompute.arrays import SharedArray
from shmcompute.calls import await_turn
from shmcompute.chunking import Chunk, Values
from shmcompute.errors import KernelTimeoutError
from shmcompute.iterate.numbered_plan import NumberedPlan, build_numbered
from shmcompute.iterate.program import find_program
from shmcompute.plans import Calls, Options, Plan, run_watched
from shmcompute.pool import Pool
from shmcompute.progress import Asked, Meter
from shmcompute.typing import Array


class Call:
    """Runs sweeps until a deadline.

    Parameters
    ----------
    parities : pair of lists
        The calls of an even sweep, and those of an odd one.
    timeout : float or None
        Seconds for all sweeps.
    swap : tuple of SharedArray
        The arrays that change places.

    Attributes
    ----------
    many : Plan or None
        What runs many sweeps in machine code, if that is possible,
    values : tuple of numbers
        with these.
    links : tuple of Link
        Those of an even sweep.
    """

    def __init__(
        self,
        parities: tuple[Calls, Calls],
        options: Options,
        pool: Pool,
        timeout: float | None,
        swap: tuple[SharedArray, ...] = (),
    ) -> None:
        self.parities = parities
        self.options = options
        self.pool = pool
        self.timeout = timeout
        self._meter: Meter | None = None
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._single: tuple[list[NumberedPlan], ...] = ()
        self._program = find_program(parities, options, pool, swap)
        self.many = None if self._program is None else self._program.plan
        self.values: Values = () if self._program is None else self._program.values
        if self.many is None:
            self._single = tuple(map(self._plans, parities))
            self.links = tuple(link for one in self._single[0] for link in one.plan.links)
        else:
            self.links = self.many.links[: len(parities[0])]

    def _plans(self, calls: Calls) -> list[NumberedPlan]:
        """The plans of a sweep, one for each kernel: it may see what the last wrote anywhere."""
        target = self.pool.running
        plans = [build_numbered(one, self.options, target, i) for i, one in enumerate(calls)]
        if any(one.plan.outputs for one in plans):
            raise ValueError("per_chunk: sweeps have no outputs; have the kernel write an array")
        return plans

    @property
    def name(self) -> str:
        """What messages call its kernels."""
        return " + ".join(link.kernel.name for link in self.links)

    @property
    def extent(self) -> Chunk:
        """The axis, or the range in its place."""
        return self.options.extent or (0, self.length)

    @property
    def length(self) -> int:
        """Indices along the axis."""
        return self.links[0].arguments.length

    @property
    def lengths(self) -> tuple[int, ...]:
        """Indices along each axis of the call."""
        return self.links[0].arguments.lengths

    @property
    def written(self) -> Array | None:
        """What an even sweep writes first."""
        accesses = [access for link in self.links for access in link.arguments.accesses()]
        return next((access.view for access in accesses if access.writes), None)

    def sweep(self, number: int) -> None:
        """Run one sweep, where machine code does not run many."""
        for one in self._single[number % 2]:
            run = partial(self.run, values=one.values(number))
            if self.options.debug:
                run_watched(run, one.plan, may_idle=number > 0)
            else:
                run(one.plan)

    def run(self, plan: Plan, values: Values) -> None:
        """Run a plan in the time that is left."""
        left = self.left()
        if left is not None and left <= 0:  # else quick sweeps would never notice
            raise KernelTimeoutError(f"kernel {self.name} overran its timeout", [])
        if plan.chunks:
            if self.pool.submitted.busy:
                left = await_turn(self.pool, left)
            self.pool.running.run(plan, values, left)

    @contextmanager
    def shown(self, progress: Asked, times: int) -> Iterator[None]:
        """Show how many of so many sweeps are over."""
        if progress is None:
            yield
            return
        with Meter(progress, times, "sweep", self.name) as self._meter:
            yield

    def ended(self, sweeps: int) -> None:
        """So many sweeps are over."""
        if self._meter is not None:
            self._meter(sweeps)

    def left(self) -> float | None:
        """Seconds that are left of its timeout."""
        return None if self._deadline is None else self._deadline - time.monotonic()

    def close(self) -> None:
        """Give back what was made for it."""
        if self._program is not None:
            self._program.release()

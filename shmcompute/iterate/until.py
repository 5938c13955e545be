"""`Condition`: when to stop, by numbers that the kernel returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from shmcompute.arrays import SharedArray
from shmcompute.chunking import per_chunk
from shmcompute.errors import KernelTypeError
from shmcompute.iterate.call import Call
from shmcompute.iterate.numbered_plan import NumberedPlan, build_numbered
from shmcompute.kernels import measured as measuring
from shmcompute.plans import Calls

PIECES = 64  # chunks of a sweep whose numbers are combined: as many for any number of workers


def _piece(lengths: tuple[int, ...]) -> Any:
    """The size of a chunk, along each axis of the call."""
    sizes = tuple(-(-length // round(PIECES ** (1 / len(lengths)))) or 1 for length in lengths)
    return sizes if len(sizes) > 1 else sizes[0]


class Condition(NamedTuple):
    """Asked after each `every` sweeps."""

    holds: Callable[[Any], Any]
    every: int
    combine: Callable[[Any, Any], Any]


def dropping_numbers(calls: Calls) -> Calls:
    """The calls of kernels of which the last returns a number that nobody wants."""
    *others, (kernel, *args) = calls
    return [*others, (measuring.ignoring(kernel, len(args)), *args)]


class Measurement:
    """Sweeps of which the numbers are wanted, each number combined of those of all chunks."""

    def __init__(self, call: Call, parities: tuple[Calls, Calls], condition: Condition) -> None:
        self._call = call
        self._combine = condition.combine
        plans = [self._plans(calls) for calls in parities]
        count = len(plans[0][-1].plan.chunks)
        self._numbers = SharedArray.zeros(count)
        self._plans_by_parity = [
            [*others, last._replace(plan=last.plan.with_outputs([self._numbers.array]))]
            for *others, last in plans
        ]

    def _plans(self, calls: Calls) -> list[NumberedPlan]:
        *others, (kernel, *args) = calls
        options, target = self._call.options, self._call.pool.running
        plans = [build_numbered(one, options, target, i) for i, one in enumerate(others)]
        schedule = "static" if options.schedule == "static" else "dynamic"  # cut by length alone
        cut = options._replace(
            schedule=schedule, chunksize=options.chunksize or _piece(self._call.lengths)
        )
        last = (measuring.measured(kernel, len(args)), *args, per_chunk(()))
        try:
            return [*plans, build_numbered(last, cut, target, len(others))]
        except KernelTypeError as error:
            raise KernelTypeError(
                f"until: the (last) kernel must return one real number for its chunk: {error}"
            ) from error

    def sweep(self, number: int) -> Any:
        """Run a sweep; its number."""
        for one in self._plans_by_parity[number % 2]:
            self._call.run(one.plan, one.values(number))
        if not self._numbers.size:
            raise ValueError(
                "until: the axis has no elements, so the kernel has returned no number to decide "
                "by; leave out until=, or the call"
            )
        return measuring.combined(self._numbers.array, self._combine)

    def close(self) -> None:
        """Give back the memory of the numbers."""
        self._numbers.close()

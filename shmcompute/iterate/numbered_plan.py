"""`NumberedPlan`: a kernel of one sweep as a plan, which is told the sweep's number."""

from __future__ import annotations

from typing import Any, NamedTuple

from shmcompute.chunking import VALUES, Values, is_number, sweep
from shmcompute.plans import Options, Plan, Target, build_plan


class NumberedPlan(NamedTuple):
    """A plan, and which of its numbers are the sweep's."""

    plan: Plan
    places: frozenset[int]

    def values(self, number: int) -> Values:
        """The numbers of a sweep."""
        if not self.places:
            return self.plan.values
        values = enumerate(self.plan.values)
        return tuple(number if place in self.places else value for place, value in values)


def build_numbered(call: tuple[Any, ...], options: Options, target: Target) -> NumberedPlan:
    """The plan of a call in which the sweep's number stands for `sweep`.

    Raises
    ------
    ValueError
        If it has so many numbers that some can't change.
    """
    given = [0 if arg is sweep else arg for arg in call]
    numbers = [arg for arg, what in zip(call, given, strict=True) if is_number(what)]
    places = frozenset(place for place, arg in enumerate(numbers) if arg is sweep)
    if places and max(places) >= VALUES:
        raise ValueError(f"sc.sweep: expected it among the first {VALUES} numbers of the call")
    return NumberedPlan(build_plan([tuple(given)], options, target), places)

"""`NumberedPlan`: a kernel of one sweep as a plan, which is told the sweep's number."""

from __future__ import annotations

from typing import Any, NamedTuple

from shmcompute.chunking import (
    VALUES,
    ChunkGenerator,
    Rng,
    Scalar,
    SweptRng,
    Values,
    sweep,
)
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


def build_numbered(
    call: tuple[Any, ...], options: Options, target: Target, link: int
) -> NumberedPlan:
    """The plan of a sweep's kernel, the `link`-th, in which the sweep's number stands for `sweep`.

    Its generators, too, ask for the number: each sweep is to draw other numbers.

    Raises
    ------
    ValueError
        If it has so many numbers that some can't change.
    """
    given = tuple(_with_number(arg, link) for arg in call)
    plan = build_plan([given], options, target)
    places = set()
    for arg, bound in zip(call[1:], plan.links[0].arguments.bound, strict=True):
        if isinstance(bound, ChunkGenerator) and bound.sweep is not None:
            places.add(bound.sweep)
        elif arg is sweep:
            places.add(_place(bound))
    return NumberedPlan(plan, frozenset(places))


def _with_number(arg: Any, link: int) -> Any:
    """What is bound in place of what asks for the sweep."""
    if arg is sweep:
        return 0
    return SweptRng(arg, link) if isinstance(arg, Rng) else arg


def _place(bound: Any) -> int:
    if isinstance(bound, Scalar):
        return bound.index
    raise ValueError(f"sc.sweep: expected it among the first {VALUES} numbers of the call")

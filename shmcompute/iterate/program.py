"""`Program`: the plan of many sweeps in machine code, kept by its pool for calls like it."""

from __future__ import annotations

from collections.abc import Hashable

from shmcompute.arrays import SharedArray
from shmcompute.chunking import VALUES, Values
from shmcompute.plans import (
    Calls,
    Given,
    Options,
    Plan,
    arrays_of,
    bind_links,
    chain_key,
)
from shmcompute.plans.sweep_plan import plan_of_sweeps
from shmcompute.pool import Pool


class Program:
    """A plan for the use of one run, with its numbers. Release it when the run is over."""

    def __init__(self, plan: Plan, values: Values) -> None:
        self.plan = plan
        self.values = values

    def release(self) -> None:
        """Let another run have the use of it."""
        if self.plan.sweeps is not None:
            self.plan.sweeps.memory.used.release()


def find_program(
    parities: tuple[Calls, Calls], options: Options, pool: Pool, swap: tuple[SharedArray, ...]
) -> Program | None:
    """The program of a call, one that is known if there is one; None if Python has to run it."""
    key, values = _key(parities[0], options, swap)
    known = pool.plans.find(key)
    if known is not None and _taken(known):
        return Program(known, values)
    calls = [*parities[0], *parities[1]]
    plan = plan_of_sweeps(bind_links(calls, options, pool.running), options, pool.running)
    if plan is None:
        return None
    _taken(plan)
    if known is None:
        shared, plain = arrays_of(calls)
        pool.plans.keep(key, plan, Given([*shared, *swap], plain))
    return Program(plan, plan.values)


def _taken(plan: Plan) -> bool:
    """Whether it is ours to run now, and nobody else's."""
    return plan.sweeps is not None and plan.sweeps.memory.used.acquire(blocking=False)


def _key(
    calls: Calls, options: Options, swap: tuple[SharedArray, ...]
) -> tuple[Hashable | None, Values]:
    """What is the same for calls that one program serves, and their numbers, of both parities."""
    key, values = chain_key(calls, options)
    if key is None or 2 * len(values) > VALUES:
        return None, values
    return ("sweeps", key, *map(id, swap)), values * 2

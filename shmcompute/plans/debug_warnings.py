"""Warnings of ``debug=True``: what is allowed, but seldom meant."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from shmcompute.chunking import Access, crossing
from shmcompute.kernels import UfuncKernel
from shmcompute.plans.plan import Plan
from shmcompute.system.tracebacks import level_of_user


def warn_of_races(plan: Plan) -> None:
    """Warn of a kernel that brings along memory of which chunks write parts."""
    written = [access for link in plan.links for access in link.arguments.accesses()]
    alone = plan.careful or len(plan.chunks) < 2
    for where, array in () if alone else plan.captured:
        crossed = crossing([*written, Access(-1, array, None, writes=False)])
        if crossed is not None:
            warnings.warn(
                f"kernel {plan.name} brings along, as {where}, memory that argument "
                f"{crossed[0].position} writes in other chunks; what it finds there depends on "
                "which of them ran before. A copy stays as it was",
                RuntimeWarning,
                stacklevel=level_of_user(),
            )


def run_watched(run: Callable[[Plan], None], plan: Plan, *, may_idle: bool = False) -> None:
    """Run a plan, and warn if its kernels have changed nothing, or what other chunks change.

    `may_idle`: that they change nothing is not to be warned of.
    """
    before = [] if may_idle else _hashes(plan)
    if plan.captured:
        from shmcompute.plans.debug_captured import run_each  # noqa: PLC0415  # for debugging only

        touched = run_each(run, plan)
    else:
        run(plan)
        touched = False
    if not touched and before and before == _hashes(plan):
        warnings.warn(
            f"kernel {plan.name} changed nothing of what it was given to write. A kernel writes in "
            "place, x[...] = ...; x = ... makes another array, which is dropped. What it is to "
            "read only is passed as sc.read(x)",
            RuntimeWarning,
            stacklevel=level_of_user(),
        )


def _hashes(plan: Plan) -> list[int]:
    """Hashes of all that the chunks write; none for ufuncs, which always write."""
    if any(isinstance(link.kernel, UfuncKernel) for link in plan.links):
        return []
    parts = (part for number in range(len(plan.chunks)) for part in plan.written(number))
    return [hash(part.tobytes()) for part in parts if part.size]

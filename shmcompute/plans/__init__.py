"""Plans: a kernel, its arguments and chunks, and the order of work."""

from shmcompute.plans.build import (
    Calls,
    Given,
    arrays_of,
    bind_links,
    build_plan,
    calls_of,
    cut_range,
    draws,
)
from shmcompute.plans.debug_warnings import run_watched
from shmcompute.plans.form import Form
from shmcompute.plans.journal import Journal, size_of
from shmcompute.plans.options import Options, Target
from shmcompute.plans.plan import Link, Plan
from shmcompute.plans.plan_cache import PlanCache, call_key, chain_key, why_bound_anew

__all__ = [
    "Calls",
    "Form",
    "Given",
    "Journal",
    "Link",
    "Options",
    "Plan",
    "PlanCache",
    "Target",
    "arrays_of",
    "bind_links",
    "build_plan",
    "call_key",
    "calls_of",
    "chain_key",
    "cut_range",
    "draws",
    "run_watched",
    "size_of",
    "swapping",  # few programs need it,
    "sweep_plan",  # nor this
    "why_bound_anew",
]

"""How worker processes would run a plan: what they are sent, and what they call by Python."""

from __future__ import annotations

from typing import Any

import numpy as np

from shmcompute.backends.base import TIMED, Prospect, Terms
from shmcompute.backends.processes.protocol import pickling
from shmcompute.kernels import Kernel, NumbaKernel, why_source
from shmcompute.plans import Journal, Plan
from shmcompute.system.call_context import call_context


def prospect(plan: Plan, terms: Terms) -> Prospect:
    """What `Processes.prospect` answers."""
    if plan.retries:
        plan = plan.with_journal(Journal(np.empty(0, np.uint32), np.empty((0, 0), np.uint8)))
    if not plan.jitted:
        plan = plan.within(call_context())
    workers, timed, caller_runs = terms
    own = TIMED if timed and caller_runs and plan.native is not None else None
    if len(plan.chunks) <= caller_runs or workers <= caller_runs:  # the caller does it all
        return Prospect(plan.reasons, own)
    sources = tuple(_why_source(link.kernel) for link in plan.links)
    kernels = [link.kernel for link in plan.links]
    reasons = tuple(map(_reason, kernels, plan.reasons, sources))
    return Prospect(reasons, own, pickling.pack(plan).nbytes, sources)


def _why_source(kernel: Kernel) -> str | None:
    return why_source(kernel.dispatcher) if isinstance(kernel, NumbaKernel) else None


def _reason(kernel: Kernel, reason: str | None, source: str | None) -> str | None:
    """Why workers call a kernel by Python."""
    if reason is not None or source is None or not isinstance(kernel, NumbaKernel):
        return reason
    dispatcher: Any = kernel.dispatcher
    if dispatcher._reduce_states()["sigs"]:  # which is compiled by signatures where it arrives, too
        return None
    return f"its machine code can't be sent, so workers compile it as they call it: {source}"

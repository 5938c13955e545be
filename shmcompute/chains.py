"""`run_chain`: chains of which links see what others do to neighbouring chunks.

Where machine code can, links go skewed, one behind the other by as much as it sees of neighbours,
so that memory is crossed once; else one after another, with all chunks done in between. What comes
of it is the same, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from shmcompute.backends import Backend
from shmcompute.chunking import Values, bytes_of
from shmcompute.errors import KernelTimeoutError, WorkerLostError
from shmcompute.plans import Plan, run_watched
from shmcompute.progress import Meter


def size_of_work(plan: Plan) -> int:
    """How many chunks there are to do: of all links, where they are apart."""
    return len(plan.chunks) * (len(plan.links) if plan.apart else 1)


def run_chain(
    plan: Plan, values: Values, workers: Backend, timeout: float | None, meter: Meter | None = None
) -> None:
    """Run a chain whose links are apart."""
    deadline = None if timeout is None else time.monotonic() + timeout

    def run(part: Plan, told: Meter | None = meter) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise KernelTimeoutError("overran", [])
        workers.run(part, values, left, told)
        if told is not None:
            told.add(len(part.chunks))

    if not plan.chunks:
        return
    with _told(plan, timeout):
        skewed, once, total = plan.skewed, partial(run, told=None), size_of_work(plan)
        if skewed is not None and _run_skewed(skewed, once, timeout, meter, total):
            return
        for stage in plan.stages[1:]:  # the first has run when it would show by itself
            workers.admit(stage)
        for stage in plan.stages:
            if plan.debug:
                run_watched(run, stage)
            else:
                run(stage)


def _run_skewed(
    plan: Plan,
    run: Callable[[Plan], None],
    timeout: float | None,
    meter: Meter | None,
    total: int,
) -> bool:
    """Run links one behind the other; False while another thread does with the same plan."""
    sweeps = plan.sweeps
    if sweeps is None or not sweeps.memory.used.acquire(blocking=False):
        return False
    try:
        cost = bytes_of([link.arguments for link in plan.links])
        phases = sweeps.schedule.phases(1)

        def run_once() -> None:
            run(plan)
            if meter is not None:  # what is done of all, as chunks
                meter(total * sweeps.ended() // phases)

        sweeps.run(1, 0, run_once, cost, timeout)
    finally:
        sweeps.memory.used.release()
    return True


@contextmanager
def _told(plan: Plan, timeout: float | None) -> Iterator[None]:
    """Have errors say what is undefined: a chunk that is done may be one of an earlier link."""
    try:
        yield
    except (KernelTimeoutError, WorkerLostError) as error:
        text = error.args[0].partition("; the content")[0]
        if "nothing has run" in text:
            raise
        if isinstance(error, KernelTimeoutError):
            text = f"kernel {plan.name} overran its timeout of {timeout} s"
        error.args = (f"{text}; all that the chain writes is undefined",)
        error.chunks = [(plan.chunks[0][0], plan.chunks[-1][1])]
        raise

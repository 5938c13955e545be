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


def run_chain(plan: Plan, values: Values, workers: Backend, timeout: float | None) -> None:
    """Run a chain whose links are apart."""
    deadline = None if timeout is None else time.monotonic() + timeout

    def run(part: Plan) -> None:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise KernelTimeoutError("overran", [])
        workers.run(part, values, left)

    if not plan.chunks:
        return
    with _told(plan, timeout):
        if plan.skewed is None or not _run_skewed(plan.skewed, run, timeout):
            for stage in plan.stages[1:]:  # the first has run when it would show by itself
                workers.admit(stage)
            for stage in plan.stages:
                if plan.debug:
                    run_watched(run, stage)
                else:
                    run(stage)


def _run_skewed(plan: Plan, run: Callable[[Plan], None], timeout: float | None) -> bool:
    """Run links one behind the other; False while another thread does with the same plan."""
    sweeps = plan.sweeps
    if sweeps is None or not sweeps.memory.used.acquire(blocking=False):
        return False
    try:
        cost = bytes_of([link.arguments for link in plan.links])
        sweeps.run(1, 0, partial(run, plan), cost, timeout)
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

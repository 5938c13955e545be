"""Running a plan exactly once although workers die: `parallel_apply(retries=...)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from shmcompute import events
from shmcompute.errors import WorkerLostError
from shmcompute.plans import Journal, Plan, size_of
from shmcompute.system.interrupts import call_uninterrupted


def run_with_retries(plan: Plan, rows: int, run: Callable[[Plan, bool], None]) -> None:
    """Run every chunk, and again, from what it held before, each whose worker died.

    Parameters
    ----------
    plan : Plan
    rows : int
        How many chunks are written at the same time at most.
    run : callable
        ``run(plan, first)`` runs every chunk of a plan once; `first`: nobody has died of it yet.

    Raises
    ------
    BaseException
        What `run` raises, but for what a further attempt may mend. Chunks that are not done read as
        before then.
    """
    size = max(size_of(plan.written(number)) for number in range(len(plan.chunks)))
    left = plan
    for attempt in range(plan.retries + 1):
        journal = Journal.create(len(left.chunks), rows, size)
        trial = left.with_journal(journal)
        try:
            run(trial, attempt == 0)
            return
        except BaseException as error:
            # A second Ctrl-C would leave chunks half written.
            put_back = partial(_put_back, journal, trial)
            undone = call_uninterrupted(put_back, insists=True)
            if not isinstance(error, WorkerLostError) or attempt == plan.retries:
                error.add_note("chunks that are not done read as before the call (retries)")
                raise
            if not undone:  # it died after its last chunk was done
                return
            left = left.only(undone)
            _tell(plan, len(undone), attempt + 1, error)


def _tell(plan: Plan, chunks: int, attempt: int, error: BaseException) -> None:
    facts = {"plan": plan.name, "chunks": chunks, "attempt": attempt, "retries": plan.retries}
    events.tell("chunks_retried", **facts, error=str(error))


def _put_back(journal: Journal, plan: Plan) -> list[int]:
    """Give chunks that are not done their old content; their numbers."""
    undone = journal.undone()
    for number in undone:
        journal.restore(number, plan.written(number))
    return undone

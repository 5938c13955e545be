"""What calls leave behind while somebody traces: see `diagnostics.trace`.

While nobody does, `recorder` is None, and to find that is all that a call pays. While somebody
does, each run of a plan has a number, under which workers record its chunks in rings of shared
memory (`backends.doorbell.control_block`), and whose place in time is noted here. All times are
`time.monotonic_ns`, a clock that all processes share.

The file is long because a recorder is one class, with a method for each kind of record.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from shmcompute.system.interrupts import call_with_lock
from shmcompute.system.records import (
    ChunkRecord,
    Happening,
    Job,
    Lane,
    Lanes,
    Planned,
    Rings,
    Run,
    Span,
)

T = TypeVar("T")

clock, get_ident = time.monotonic_ns, threading.get_ident

LIMIT = 1_000_000  # runs, spans, tasks and records of chunks that are kept

_numbers = itertools.count(1)  # of runs and tasks; unique in this process
_pools = itertools.count(1)


class TaskSpan(Span):
    """A call of a function by a worker; `began` is when it was submitted."""

    __slots__ = ("number", "pool", "recorder")

    number: int
    pool: str
    recorder: Recorder

    def run(self, work: Callable[..., T], *args: Any) -> T:
        """Do it in this thread."""
        self.lane = self.recorder.lane()
        return self.recorder.record(self.number, 0, work, *args)


class Recorder:
    """Takes notes, from any thread.

    Parameters
    ----------
    limit : int
        How many runs, spans, tasks and records it keeps. Those beyond are counted.

    Attributes
    ----------
    lost : list of list of int
        When it was found that how many records and runs were not kept.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        # Flat, for each object that stays costs a garbage collection its time. Of runs the first
        # five fields, and of those that have ended number, end and error; of what this process
        # has recorded by itself, the first four.
        self._runs: list[Any] = []
        self._ends: list[Any] = []
        self._own: list[int] = []
        self._taken: list[tuple[int, Any]] = []  # slots, and what was recorded there
        self._jobs: dict[tuple[int, str, int], Job] = {}
        self.spans: list[Span] = []
        self.tasks: list[TaskSpan] = []
        self.happenings: list[Happening] = []
        self.lost: list[list[int]] = []
        self._room = limit
        self._lanes: dict[int, Lane] = {}  # by thread
        self._rings: set[Rings] = set()
        self._lock = threading.RLock()  # of who takes records

    def job(self, plan: Planned, workers: Lanes) -> Job:
        """What runs of this plan by these workers have in common."""
        key = plan.form.number, workers.pool, len(plan.chunks)
        job = self._jobs.get(key)
        if job is None:
            job = self._jobs[key] = Job(plan.name, workers, len(plan.chunks), plan.numbers)
        return job

    def begin_run(self, plan: Planned, job: Job, rings: Rings) -> int:
        """A run begins in this thread, which has the lock of the workers; its number."""
        number = self._new_run(plan, job)
        rings.left -= job.length
        if rings.left < 0:
            self._refill(rings, job.length)
        rings.record(number)
        return number

    def end_run(self, number: int, rings: Rings, error: BaseException | None = None) -> None:
        """It has ended."""
        self._ends += number, clock(), "" if error is None else type(error).__name__
        if error is not None:
            # At once: a new worker will write where the dead one's last chunk is.
            self.take(rings)
        if recorder is not self:  # it was stopped meanwhile
            self._leave(rings)

    def run_here(
        self, plan: Planned, workers: Lanes, work: Callable[..., None], *args: Any
    ) -> None:
        """Do the work of a run, all in this thread: `work` is given a `run_chunk` that records."""
        run, run_chunk = self._new_run(plan, self.job(plan, workers)), plan.run_chunk

        def record(number: int, *rest: Any) -> None:
            began = clock()
            try:
                run_chunk(number, *rest)
            finally:
                self._note(run, number, began)

        error = ""
        try:
            work(*args, run_chunk=record)
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self._ends += run, clock(), error

    def _new_run(self, plan: Planned, job: Job) -> int:
        ident, now, number = get_ident(), clock(), next(_numbers)
        self._room -= 1
        if self._room < 0:
            self._lose(1)
            return 0
        lane = self._lanes.get(ident) or self._lane(ident)
        self._runs += number, lane, now, plan.chunks, job
        return number

    def runs(self) -> list[Run]:
        """All runs so far, in the order in which they began."""
        ends, runs = self._ends[:], self._runs[:]
        ended = {number: end for number, *end in _parts(ends, 3)}
        return [Run(*run, *ended.get(run[0], ())) for run in _parts(runs, 5)]

    def records(self) -> Iterator[ChunkRecord]:
        """What was taken of workers, and what was recorded in this process."""
        for slot, rows in self._taken[:]:
            for row in rows.tolist():
                yield ChunkRecord._make((*row, slot))
        yield from itertools.starmap(ChunkRecord, _parts(self._own[:], 4))

    def expect(self, rings: Rings, records: int) -> None:
        """Take what was recorded there, where there may be no room for so many records more."""
        rings.left -= records
        if rings.left < 0:
            self._refill(rings, records)

    def _refill(self, rings: Rings, records: int) -> None:
        self.take(rings)
        rings.left = rings.room - records

    def record(self, run: int, number: int, work: Callable[..., T], *args: Any) -> T:
        """Do some work in this thread, and record when."""
        began = clock()
        try:
            return work(*args)
        finally:
            self._note(run, number, began)

    def _note(self, run: int, number: int, began: int) -> None:
        if self._has_room():
            self._own += run, number, began, clock()

    def task(self, name: str, pool: str) -> TaskSpan | None:
        """A task was submitted; None: it is not to be recorded."""
        if not self._has_room():
            return None
        task = TaskSpan("task", name, None, clock())
        task.number, task.pool, task.recorder = next(_numbers), pool, self
        self.tasks.append(task)
        return task

    @contextmanager
    def span(self, kind: str, name: str) -> Iterator[None]:
        """Note what takes time in this thread."""
        span = self.begin(kind, name)
        try:
            yield
        except BaseException as error:
            span.end(error)
            raise
        span.end()

    def begin(self, kind: str, name: str) -> Span:
        """Something begins in this thread that takes time."""
        span = Span(kind, name, self.lane(), clock())
        if self._has_room():
            self.spans.append(span)
        return span

    def happened(self, event: str, facts: dict[str, Any]) -> None:
        """Listen to `events`."""
        if self._has_room():
            self.happenings.append(Happening(clock(), event, facts))

    def lane(self) -> Lane:
        """That of this thread."""
        ident = get_ident()
        return self._lanes.get(ident) or self._lane(ident)

    def on_behalf(self, function: Callable[[], T]) -> Callable[[], T]:
        """The function for another thread, which does it while this one waits."""
        lane = self.lane()

        def call() -> T:
            ident = get_ident()
            self._lanes[ident] = lane
            try:
                return function()
            finally:
                self._lanes.pop(ident, None)

        return call

    def _lane(self, ident: int) -> Lane:
        # Not `current_thread`, which would list threads that others have started.
        thread = threading._active.get(ident)  # type: ignore[attr-defined]
        name = "thread" if thread is None else thread.name
        self._lanes[ident] = lane = Lane(os.getpid(), threading.get_native_id(), name)
        return lane

    def allow(self, limit: int) -> None:
        """Another trace begins, which may want more to be kept."""
        self._room += max(0, limit - self.limit)
        self.limit = max(self.limit, limit)
        self.lost.append([clock(), 0])  # what is lost from now on is that one's, too

    def stop(self) -> None:
        """It records no more, and lets go of the memory of pools that are closed."""
        for rings in list(self._rings):
            self._leave(rings)
        self._rings.clear()

    def _leave(self, rings: Rings) -> None:
        rings.record(0)
        rings.left = -1  # the next recorder is to get to know them

    def _has_room(self) -> bool:
        self._room -= 1
        if self._room < 0:
            self._lose(1)
        return self._room >= 0

    def _lose(self, count: int) -> None:
        if self.lost and clock() - self.lost[-1][0] < 10**9:  # a line a second is enough
            self.lost[-1][1] += count
        elif count:
            self.lost.append([clock(), count])

    def take(self, rings: Rings) -> None:
        """Take what workers have recorded there."""
        call_with_lock(self._lock, math.inf, lambda _: self._take(rings))

    def take_all(self) -> None:
        """Take what all workers have recorded."""
        for rings in list(self._rings):
            self.take(rings)

    def _take(self, rings: Rings) -> None:
        taken, lost = rings.take_records(), rings.take_lost()
        if rings in self._rings:  # else it is of others, who traced before
            self._lose(lost)
            for slot, rows in enumerate(taken):
                _, _, began, ended = rows[-1].tolist()
                self._keep(slot, rows if began and not ended else rows[:-1])
        else:
            self._rings.add(rings)

    def _keep(self, slot: int, rows: Any) -> None:
        kept = rows[: max(0, self._room)]
        self._room -= len(kept)
        self._lose(len(rows) - len(kept))
        self._taken.append((slot, kept))


def _parts(flat: list[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """A list of fields as tuples of so many."""
    return zip(*[iter(flat)] * size, strict=True)


# Whoever asks reads it once: a trace may end in another thread at any moment.
recorder: Recorder | None = None


def submitted(name: str, pool: str) -> TaskSpan | None:
    """A task was submitted; None if nobody traces."""
    return None if (now := recorder) is None else now.task(name, pool)


def begin(kind: str, name: str) -> Span | None:
    """Something begins in this thread that takes time; None if nobody traces."""
    return None if (now := recorder) is None else now.begin(kind, name)


def handed_out(tasks: Iterable[TaskSpan | None], lane: Lane, rings: Rings) -> None:
    """A worker that records there was given these."""
    given = [task for task in tasks if task is not None]
    for task in given:
        task.lane = lane
    if given and (now := recorder) is not None:
        now.expect(rings, len(given))


def take(rings: Rings) -> None:
    """Take what was recorded there, if somebody traces."""
    if (now := recorder) is not None:
        now.take(rings)


def name_pool(kind: str, workers: int) -> str:
    """What a new pool is called where there may be several."""
    return f"pool {next(_pools)} ({workers} {kind})"


def span(kind: str, name: str) -> AbstractContextManager[None]:
    """Note what takes time in this thread, if somebody traces. For what is rare."""
    return nullcontext() if (now := recorder) is None else now.span(kind, name)


def _after_fork() -> None:
    """Who traces is the parent."""
    global recorder
    recorder = None


os.register_at_fork(after_in_child=_after_fork)

"""`Traced`: what was recorded between two moments, put together: calls, their chunks, tasks."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from shmcompute.system.recording import Recorder, TaskSpan
from shmcompute.system.records import COMPILING, ChunkRecord, Happening, Lane, Run, Span

PREPARING = ("plan", "send", "wait")  # what a call does before its run


@dataclass(frozen=True)
class TracedChunk:
    """A chunk of a call: ``[start, stop)``, done by `lane` from `began` to `ended`, in ns."""

    lane: Lane
    number: int
    start: int
    stop: int
    began: int
    ended: int
    unfinished: bool = False  # its worker died, or it had not ended when the trace did

    @property
    def seconds(self) -> float:
        """What it took."""
        return (self.ended - self.began) / 1e9


@dataclass
class TracedCall:
    """A call of a kernel.

    All times are `time.monotonic_ns`. It began at `called`, and was handed to workers at `began`:
    between the two it was bound, perhaps compiled and sent, and waited for the pool.
    """

    name: str
    pool: str
    lane: Lane  # of the thread that called
    called: int
    began: int
    ended: int
    error: str = ""  # the type of what it raised
    runs: int = 1  # with retries, how often it was handed out
    workers: list[Lane] = field(default_factory=list)
    chunks: list[TracedChunk] = field(default_factory=list)
    compilations: list[TracedChunk] = field(default_factory=list)  # by workers, within chunks

    @property
    def seconds(self) -> float:
        """What it took, for who called."""
        return (self.ended - self.called) / 1e9


@dataclass(frozen=True)
class TracedTask:
    """A call of a function by a worker, in ns; `began` is 0 if it never began."""

    name: str
    pool: str
    lane: Lane | None
    submitted: int
    began: int
    ended: int
    error: str

    @property
    def seconds(self) -> float:
        """What it took, without its wait for a worker."""
        return (self.ended - self.began) / 1e9


@dataclass(frozen=True)
class Traced:
    """All of it, in the order in which it began."""

    began: int
    ended: int
    calls: list[TracedCall]
    tasks: list[TracedTask]
    spans: list[Span]  # what threads of the caller did beside: see `recording.Span`
    starts: list[tuple[Lane, int, int]]  # of workers: when each was started, when it was ready
    happenings: list[Happening]
    lost: int

    @classmethod
    def of(cls, recorder: Recorder, began: int, ended: int) -> Traced:
        """What a recorder has noted of the time between two moments."""
        records: dict[int, list[ChunkRecord]] = defaultdict(list)
        for record in recorder.records():
            records[record.run].append(record)
        runs = [run for run in recorder.runs() if _within(run, began, ended)]
        spans = [span for span in list(recorder.spans) if _within(span, began, ended)]
        tasks = [task for task in list(recorder.tasks) if began <= task.began <= ended]
        happenings = [one for one in list(recorder.happenings) if began <= one.time <= ended]
        return cls(
            began,
            ended,
            _calls(runs, records, spans, ended),
            [_task(task, records[task.number], ended) for task in tasks],
            [_closed(span, ended) for span in spans],
            _starts(happenings, began, ended),
            happenings,
            sum(count for when, count in list(recorder.lost) if began <= when <= ended),
        )


def _within(span: Span | Run, began: int, ended: int) -> bool:
    return began <= span.began <= ended


def _closed(span: Span, ended: int) -> Span:
    """The span, which ends when the trace does if it went on."""
    copy = Span(span.kind, span.name, span.lane, span.began)
    copy.ended, copy.error = min(span.ended or ended, ended), span.error
    return copy


def _calls(
    runs: Iterable[Run], records: dict[int, list[ChunkRecord]], spans: Iterable[Span], ended: int
) -> list[TracedCall]:
    calls: list[TracedCall] = []
    latest: dict[Lane, TracedCall] = {}  # of each thread
    prepared: dict[Lane | None, list[tuple[int, int]]] = defaultdict(list)
    for span in spans:
        if span.kind in PREPARING and span.ended and not span.error:
            prepared[span.lane].append((span.began, span.ended))
    for run in runs:
        if run.job.numbers is None or run.lane not in latest:
            called = _called(run, latest.get(run.lane), prepared[run.lane])
            call = TracedCall(run.job.name, run.job.workers.pool, run.lane, called, run.began, 0)
            calls.append(call)
            latest[run.lane] = call
        else:  # what was left of the same call is run again
            call = latest[run.lane]
            call.runs += 1
        call.ended, call.error = min(run.ended or ended, ended), run.error
        _add(call, run, records[run.number])
    return calls


def _called(run: Run, before: TracedCall | None, prepared: Sequence[tuple[int, int]]) -> int:
    """When a call began: with what its thread did before its run, and for no other one."""
    since = 0 if before is None else before.ended if before.ended <= run.began else before.began
    own = prepared[bisect_left(prepared, (since, 0)) : bisect_left(prepared, (run.began, 0))]
    return min((began for began, ended in own if ended <= run.began), default=run.began)


def _add(call: TracedCall, run: Run, records: Sequence[ChunkRecord]) -> None:
    """Put the records of a run into its call."""
    lanes = {slot: run.job.workers.lanes.get(slot, call.lane) for slot in run.job.workers.slots}
    call.workers += [lane for lane in lanes.values() if lane not in call.workers]
    found: dict[int, ChunkRecord] = {}
    for record in records:
        if record.chunk == COMPILING:
            call.compilations.append(_chunk(record, call, lanes[record.slot], (0, 0), COMPILING))
        elif not found.get(record.chunk, record).ended or record.chunk not in found:
            found[record.chunk] = record  # one that goes on may be there twice
    for number, record in found.items():
        among_all = number if run.job.numbers is None else run.job.numbers[number]
        chunk = run.chunks[number]
        call.chunks.append(_chunk(record, call, lanes[record.slot], chunk, among_all))
    call.chunks.sort(key=lambda chunk: chunk.began)


def _chunk(
    record: ChunkRecord, call: TracedCall, lane: Lane, chunk: tuple[int, int], number: int
) -> TracedChunk:
    unfinished = not record.ended or record.ended > call.ended
    ended = call.ended if unfinished else record.ended
    return TracedChunk(lane, number, *chunk, record.began, ended, unfinished)


def _task(task: TaskSpan, records: Sequence[ChunkRecord], ended: int) -> TracedTask:
    best = max(records, key=lambda record: record.ended, default=ChunkRecord(0, 0, 0, 0))
    until = best.ended or (task.ended or ended if best.began else 0)
    return TracedTask(task.name, task.pool, task.lane, task.began, best.began, until, task.error)


def _starts(happenings: Iterable[Happening], began: int, ended: int) -> list[tuple[Lane, int, int]]:
    """When which worker was started, and when it was ready or lost, as far as that is known."""
    starts: dict[int, tuple[Lane, int, int]] = {}  # by process
    for when, what, facts in happenings:
        pid = facts.get("pid", 0)
        if what == "worker_started":
            starts[pid] = Lane(pid, pid, f"worker {facts['number']}"), when, ended
        elif what in ("worker_ready", "worker_lost", "worker_killed"):
            default = Lane(pid, pid, f"worker {facts['number']}"), began, ended
            lane, since, until = starts.get(pid, default)
            if until == ended and (what == "worker_ready" or pid in starts):
                starts[pid] = lane, since, when
    return list(starts.values())

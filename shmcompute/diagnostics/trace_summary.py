"""`Summary`: who worked, who waited, and who was late."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from shmcompute.diagnostics.traced import Traced, TracedCall
from shmcompute.system.records import Lane

BALANCED = 1.05  # up to this imbalance nobody is called late
COLUMNS = ("working", "waiting", "starting", "compiling")

Interval = tuple[int, int]


@dataclass
class Row:
    """The time of one worker in the calls of a group, in seconds.

    The four add up to what the calls took that it was part of.
    """

    lane: Lane
    caller: bool  # whether it is the calling thread, who takes a share
    chunks: int = 0
    unfinished: int = 0
    late: float = 0.0  # of it, beyond the average worker's: in the calls in which it worked most
    working: float = 0.0
    waiting: float = 0.0
    starting: float = 0.0
    compiling: float = 0.0

    @property
    def name(self) -> str:
        """What it is called."""
        return "the caller" if self.caller else self.lane.name

    @property
    def seconds(self) -> float:
        """What the calls took."""
        return self.working + self.waiting + self.starting + self.compiling


@dataclass
class Group:
    """Calls of one kernel in one pool, or a single call.

    Attributes
    ----------
    imbalance : float
        How much longer the busiest worker of a call worked than its workers did on average: 1 is
        balanced, the number of workers is one that works alone.
    late : Row
        The worker for which others waited longest.
    share : float
        Its share of all work, from 0 to 1.
    """

    name: str
    pool: str
    calls: int = 0
    chunks: int = 0
    seconds: float = 0.0
    average: float = 0.0  # seconds that a worker worked
    errors: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    @property
    def late(self) -> Row:
        return max(self.rows, key=lambda row: (row.late, row.working))

    @property
    def share(self) -> float:
        total = sum(row.working for row in self.rows)
        return self.late.working / total if total else 1 / len(self.rows)

    @property
    def imbalance(self) -> float:
        return 1.0 + sum(row.late for row in self.rows) / self.average if self.average else 1.0

    def __str__(self) -> str:
        return "\n".join(_lines_of(self))


@dataclass
class Summary:
    """Groups of calls, and what happened beside them; prints as a table.

    Attributes
    ----------
    groups : list of Group
        The longest first; with ``each=True`` in the order of the calls.
    notes : list of str
        What was compiled and sent, what waited, what tasks took, which workers died.
    lost : int
        How many things were not recorded.
    """

    groups: list[Group]
    notes: list[str]
    lost: int

    def __str__(self) -> str:
        blocks = [str(group) for group in self.groups] or ["no calls"]
        if self.notes:
            blocks.append("\n".join(self.notes))
        if self.lost:
            blocks.append(f"{self.lost} records were lost for want of room: times are too short")
        return "\n\n".join(blocks)

    __repr__ = __str__


def summarize(traced: Traced, *, each: bool) -> Summary:
    """The account of what was traced."""
    groups: dict[object, Group] = {}
    for number, call in enumerate(traced.calls):
        key = number if each else (call.name, call.pool)
        group = groups.setdefault(key, Group(call.name, call.pool))
        _add(group, call, traced)
    listed = list(groups.values())
    if not each:
        listed.sort(key=lambda group: -group.seconds)
    return Summary(listed, list(_notes(traced)), traced.lost)


def _add(group: Group, call: TracedCall, traced: Traced) -> None:
    group.calls += 1
    group.chunks += len(call.chunks)
    group.seconds += call.seconds
    if call.error:
        group.errors.append(call.error)
    whole = (call.called, call.ended)
    own = [
        (span.began, span.ended)
        for span in traced.spans
        if span.kind == "compile" and span.lane == call.lane and _overlap(span, whole)
    ]
    parts = []
    for lane in call.workers:
        row = next((row for row in group.rows if row.lane == lane), None)
        if row is None:
            group.rows.append(row := Row(lane, lane == call.lane and call.pool != "serial"))
        before = row.working
        _add_time(row, call, own, [(a, b) for who, a, b in traced.starts if who.pid == lane.pid])
        parts.append((row.working - before, row))
    mean = sum(worked for worked, _ in parts) / len(parts)
    most, latest = max(parts, key=lambda part: part[0])
    group.average += mean
    latest.late += most - mean


def _add_time(
    row: Row, call: TracedCall, compiled: Sequence[Interval], started: Sequence[Interval]
) -> None:
    """Each moment of a call counts once: what comes first here has it."""
    chunks = [chunk for chunk in call.chunks if chunk.lane == row.lane]
    row.chunks += len(chunks)
    row.unfinished += sum(chunk.unfinished for chunk in chunks)
    inside = [(one.began, one.ended) for one in call.compilations if one.lane == row.lane]
    kinds = (
        ("compiling", [*inside, *compiled]),
        ("working", [(chunk.began, chunk.ended) for chunk in chunks]),
        ("starting", started),
    )
    taken: list[Interval] = []
    before = 0
    for kind, intervals in kinds:
        taken = list(_union([*taken, *_clipped(intervals, call)]))
        covered = sum(stop - start for start, stop in taken)
        setattr(row, kind, getattr(row, kind) + (covered - before) / 1e9)
        before = covered
    row.waiting += (call.ended - call.called - before) / 1e9


def _overlap(span: object, whole: Interval) -> bool:
    began, ended = span.began, span.ended  # type: ignore[attr-defined]
    return bool(began < whole[1] and ended > whole[0])


def _clipped(intervals: Iterable[Interval], call: TracedCall) -> Iterator[Interval]:
    for start, stop in intervals:
        if start < call.ended and stop > call.called:
            yield max(start, call.called), min(stop, call.ended)


def _union(intervals: Sequence[Interval]) -> Iterator[Interval]:
    """The same moments as intervals that do not overlap."""
    ordered = sorted(intervals)
    if not ordered:
        return
    first, last = ordered[0]
    for start, stop in ordered[1:]:
        if start > last:
            yield first, last
            first, last = start, stop
        last = max(last, stop)
    yield first, last


def duration(seconds: float) -> str:
    """A time, as one reads it."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")


def _lines_of(group: Group) -> Iterator[str]:
    head = f"{_count(group.calls, 'call')}, {_count(group.chunks, 'chunk')}"
    yield f"{group.name}, {group.pool}: {head}, {duration(group.seconds)}"
    cells = [("worker", "chunks", *COLUMNS), *map(_cells, group.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for name, *others in cells:
        aligned = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        yield "  " + "  ".join((name.ljust(widths[0]), *aligned))
    if group.errors:
        yield f"  raised: {', '.join(sorted(set(group.errors)))}"
    yield "  " + _judged(group)


def _cells(row: Row) -> tuple[str, ...]:
    whole = row.seconds or 1.0
    parts = [getattr(row, column) for column in COLUMNS]
    shares = (f"{duration(part)} {100 * part / whole:3.0f} %" if part else "-" for part in parts)
    chunks = f"{row.chunks}" + (f" ({row.unfinished} unfinished)" if row.unfinished else "")
    return _named(row), chunks, *shares


def _named(row: Row) -> str:
    is_process = row.lane.pid == row.lane.thread and not row.caller
    return f"{row.name} (pid {row.lane.pid})" if is_process else row.name


def _judged(group: Group) -> str:
    """In words, who was late."""
    late, imbalance = group.late, group.imbalance
    if len(group.rows) == 1:
        return "one worker does all"
    if imbalance < BALANCED:
        return f"balanced: imbalance {imbalance:.2f}"
    who = _named(late)
    lost = duration(sum(row.late for row in group.rows))
    return (
        f"imbalance {imbalance:.2f}: {who} is late, it did {100 * group.share:.0f} % of the work; "
        f"dealt evenly, that would take {lost} less"
    )


def _notes(traced: Traced) -> Iterator[str]:
    for kind, said in (("compile", "compiled"), ("send", "sent to workers"), ("wait", "waited")):
        spans = [span for span in traced.spans if span.kind == kind]
        for name in dict.fromkeys(span.name for span in spans):
            taken = [span.ended - span.began for span in spans if span.name == name]
            times = "" if len(taken) == 1 else f" ({len(taken)} times)"
            yield f"{said} {name}: {duration(sum(taken) / 1e9)}{times}"
    yield from _notes_of_tasks(traced)
    for happening in traced.happenings:
        facts = happening.facts
        if happening.event == "worker_lost":
            yield f"worker {facts['number']} (pid {facts['pid']}) was lost: {facts['how']}"
        if happening.event == "chunks_retried":
            yield f"{facts['plan']}: {_count(facts['chunks'], 'chunk')} run again"


def _notes_of_tasks(traced: Traced) -> Iterator[str]:
    groups: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for task in traced.tasks:
        waited = (max(task.began, task.submitted) - task.submitted) / 1e9
        groups.setdefault((task.name, task.pool), []).append((task.seconds, waited))
    for (name, pool), times in groups.items():
        worked, waited = (sum(column) for column in zip(*times, strict=True))
        yield (
            f"tasks {name}, {pool}: {_count(len(times), 'task')}, {duration(worked)} of work, "
            f"{duration(waited)} of waiting for a worker"
        )

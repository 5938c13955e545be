"""What a `recording.Recorder` notes. All times are `time.monotonic_ns`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Lane(NamedTuple):
    """Whose time it is: a worker's, or a thread's of the caller."""

    pid: int
    thread: int  # as the operating system numbers it
    name: str


class Lanes(NamedTuple):
    """Who runs a plan."""

    pool: str
    slots: Sequence[int]
    lanes: Mapping[int, Lane]  # by slot; the caller's own slot has none


class Span:
    """Something that took time in a thread of this process.

    Attributes
    ----------
    kind : str
        ``'plan'``, ``'compile'``, ``'send'`` or ``'wait'``.
    lane : Lane or None
        Whose time it was; None: not known yet.
    began, ended : int
        Nanoseconds; `ended` is 0 as long as it goes on.
    error : str
        The type of the exception that ended it.
    """

    __slots__ = ("began", "ended", "error", "kind", "lane", "name")

    def __init__(self, kind: str, name: str, lane: Lane | None, began: int) -> None:
        self.kind = kind
        self.name = name
        self.lane = lane
        self.began = began
        self.ended = 0
        self.error = ""

    def end(self, error: BaseException | None = None) -> None:
        """It ends now."""
        self.ended = time.monotonic_ns()
        if error is not None:
            self.error = type(error).__name__


class Job(NamedTuple):
    """What the runs of a plan by the same workers have in common."""

    name: str
    workers: Lanes
    length: int  # in chunks
    numbers: tuple[int, ...] | None  # of a run of some chunks: their numbers among all


class Run(NamedTuple):
    """One run of a plan; with retries a call has several."""

    number: int
    lane: Lane
    began: int
    chunks: Sequence[tuple[int, int]]
    job: Job
    ended: int = 0
    error: str = ""  # the type of what it raised


class Happening(NamedTuple):
    """What `events` told, and when."""

    time: int
    event: str
    facts: dict[str, Any]


class ChunkRecord(NamedTuple):
    """What a worker did: a chunk of a run, a task (`chunk` is 0), or `COMPILING`."""

    run: int
    chunk: int
    began: int
    ended: int  # 0: it had not ended
    slot: int = 0  # whose it is


COMPILING = -1  # in place of a chunk's number: what took that time was Numba


class Rings(Protocol):
    """Where the workers of a pool record: `backends.doorbell.DoorbellCaller`."""

    room: int  # how many chunks may be recorded before records are to be taken
    left: int  # and how many still
    record: Callable[[int], None]

    def take_records(self) -> list[Any]: ...

    def take_lost(self) -> int: ...


class Planned(Protocol):
    """What the recorder wants to know of a plan."""

    @property
    def numbers(self) -> tuple[int, ...] | None: ...

    @property
    def chunks(self) -> Sequence[tuple[int, int]]: ...

    @property
    def name(self) -> str: ...

    @property
    def form(self) -> Any: ...

    def run_chunk(self, number: int, *args: Any) -> None: ...

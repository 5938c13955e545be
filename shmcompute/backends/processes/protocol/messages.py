"""The messages between a pool and its worker processes.

The doorbell carries what is frequent, runs of plans; a pipe carries these. A worker says `Ready`
once, or the `Failure` of the pool's initializer, and then it ends. It answers every `Load` and
`Forget` with one `Loaded`. `Exit` has no answer. `Attend` is answered when `Rest` is, and between
the two each `Task` is answered that was not taken back. A `Failure` comes unasked, after the
doorbell has told that a kernel raised. So when the answers are in, both ends are silent.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from shmcompute.chunking import Chunk, Number, NumberedSegment
from shmcompute.storage import Handle
from shmcompute.system.surroundings import Surroundings


@dataclass(frozen=True)
class PackedPlan:
    """A plan as bytes; equal bytes are one plan."""

    links: tuple[tuple[bytes, bytes], ...]  # kernel and arguments of each
    kinds: tuple[Hashable, ...]  # what is equal where machine code finds arrays of the same types
    types: tuple[type[Number], ...]  # of the numbers that come with a call
    chunks: Sequence[Chunk] | None  # None: each frame has a rule of its own
    numbers: tuple[int, ...] | None
    journal: bytes
    sweeps: bytes
    debug: bool
    context: bytes
    handles: frozenset[Handle]  # of all segments it refers to
    nbytes: int = field(compare=False)  # about what a worker that holds it takes


@dataclass(frozen=True)
class Failure:
    """An exception on its way back."""

    number: int | None  # of the chunk, if one was running
    error: bytes  # the pickled exception
    summary: str  # its type and text
    traceback: str


@dataclass(frozen=True)
class Load:
    """To a worker: keep a plan under this number; drop the stale ones. Answer: `Loaded`."""

    plan: int
    packed: PackedPlan | None  # None: it has that plan
    segments: tuple[NumberedSegment, ...]  # that frames will name
    stale: tuple[int, ...]
    around: Surroundings  # the parent's: where the kernel's module and its files are found


@dataclass(frozen=True)
class Forget:
    """To a worker: unmap these segments and drop these plans. Answer: `Loaded`."""

    handles: frozenset[Handle]
    stale: tuple[int, ...]


@dataclass(frozen=True)
class Attend:
    """To a worker: take what comes by the pipe, without a ring, until `Rest`. Answer: to that."""

    around: Surroundings  # the parent's


class Task(NamedTuple):
    """A call of a function, as it travels. Answer: `Result`, or the `Failure`."""

    function: bytes
    arguments: bytes
    context: bytes
    handles: frozenset[Handle]  # of all segments they refer to


@dataclass(frozen=True)
class Tasks:
    """To a worker that attends: these in order, until one was taken back. An answer to each."""

    first: int  # the number of the first; see `DoorbellWorker.claim`
    tasks: tuple[Task, ...]
    recorded: tuple[int, ...]  # under which numbers; 0: not at all


@dataclass(frozen=True)
class Rest:
    """To a worker that attends: there is nothing to do for now. Answer: `Loaded`."""


@dataclass(frozen=True)
class Exit:
    """To a worker: end. While it attends, it touches the doorbell no more."""


@dataclass(frozen=True)
class Ready:
    """From a worker: it takes messages now."""


@dataclass(frozen=True)
class Loaded:
    """From a worker: done, or why not."""

    failure: Failure | None = None


class Result(NamedTuple):
    """From a worker: what a task returned, and the segments in it that are the caller's now."""

    value: bytes
    given: frozenset[Handle]

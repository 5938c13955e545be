"""How a plan and its outcome travel: the messages, and the pipe that carries them.

The pipe is the portable channel. A worker answers every `Load`, `Forget` and `Run` with exactly one
message, and says `Ready` once. `Stop` and `Exit` have no answer; a `Stop` that comes after the
worker's last answer is a no-op. So after the answers are in, both ends are silent. `Attend` is
answered when `Rest` is, and between them each `Task` of `Tasks` is that was not taken back.

Only a parent and its own workers hold the two ends; nothing listens anywhere.
"""

from __future__ import annotations

import os
import pickle
import select
import socket
import struct
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from shmcompute.arguments import Number, Values
from shmcompute.partition import Chunk
from shmcompute.storage import Handle


@dataclass(frozen=True)
class Packed:
    """A plan as bytes; equal bytes are the same plan."""

    links: tuple[tuple[bytes, bytes], ...]  # kernel and arguments of each
    kinds: tuple[type[Number], ...]  # of the numbers that come with a call
    chunks: tuple[Chunk, ...]
    journal: bytes
    debug: bool
    handles: frozenset[Handle]  # of all segments it refers to

    @property
    def nbytes(self) -> int:
        return sum(map(len, chain.from_iterable(self.links))) + 16 * len(self.chunks)


@dataclass(frozen=True)
class Failure:
    """An exception on its way back."""

    number: int | None  # of the chunk, if one was running
    error: bytes  # the pickled exception
    told: str  # its type and text
    trace: str


@dataclass(frozen=True)
class Load:
    """To a worker: keep this plan under this number; drop the stale ones. Answer: `Loaded`."""

    plan: int
    packed: Packed
    stale: tuple[int, ...]
    path: tuple[str, ...]  # the parent's sys.path: where the kernel's module is found


@dataclass(frozen=True)
class Run:
    """To a worker: run these chunks in order. Answer: `Ran`."""

    plan: int
    numbers: tuple[int, ...] | range
    values: Values


@dataclass(frozen=True)
class Stop:
    """To a worker: end the run at the next chunk."""


@dataclass(frozen=True)
class Forget:
    """To a worker: unmap these segments and drop these plans. Answer: `Loaded`."""

    handles: frozenset[Handle]
    stale: tuple[int, ...]


@dataclass(frozen=True)
class Attend:
    """To a worker: take what comes by the pipe, without a bell, until `Rest`. Answer: to that."""

    path: tuple[str, ...]  # the parent's sys.path


class Task(NamedTuple):
    """A call of a function, as it travels. Answer: `Result`, or the `Failure`."""

    function: bytes
    arguments: bytes
    handles: frozenset[Handle]  # of all segments they refer to


@dataclass(frozen=True)
class Tasks:
    """To a worker that attends: these in order, until one was taken back. An answer to each."""

    first: int  # the number of the first; see `Seat.claim`
    tasks: tuple[Task, ...]


@dataclass(frozen=True)
class Rest:
    """To a worker that attends: there is nothing to do for now. Answer: `Loaded`."""


@dataclass(frozen=True)
class Exit:
    """To a worker: end."""


@dataclass(frozen=True)
class Ready:
    """From a worker: it takes messages now."""


@dataclass(frozen=True)
class Loaded:
    """From a worker: done, or why not."""

    failure: Failure | None = None


@dataclass(frozen=True)
class Ran:
    """From a worker: these chunks are done, and it writes no more."""

    done: tuple[int, ...]
    failure: Failure | None = None


class Result(NamedTuple):
    """From a worker: what a task returned, and the segments in it that are the caller's now."""

    value: bytes
    given: frozenset[Handle]


class Lost(Exception):  # noqa: N818  # it never leaves this package
    """The other end is gone."""


_ours: weakref.WeakSet[Channel] = weakref.WeakSet()


ROOM = 1 << 16  # bytes read at once
_SHORT, _LONG = struct.Struct("!i"), struct.Struct("!Q")  # lengths of messages

STUCK = 10  # seconds without a byte in the middle of a message, after which an end counts as lost


class Channel:
    """One end of a duplex pipe.

    The parent's ends are closed in every process forked from it, workers included: an end that
    lives on in a child would keep the worker behind it from seeing that its parent died.
    """

    def __init__(self, connection: Connection[Any, Any], *, parent: bool) -> None:
        self._connection = connection
        self._cut = False  # whether the rest of a message did not come: what follows makes no sense
        if parent:
            _ours.add(self)
            _limit(connection.fileno())
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(connection.fileno(), select.POLLIN)

    def send(self, message: object) -> None:
        try:
            # What is sent is made of bytes, numbers and handles: it needs no reducers.
            self._connection.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        except OSError as error:
            raise Lost from error

    def receive(self) -> Any:
        if self._cut:
            raise Lost
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:  # also in the middle of a message
            raise Lost from error

    def receive_all(self) -> list[Any]:
        """The messages that are there, at least one; small ones come by one read together."""
        if not hasattr(self, "_poll"):
            return [self.receive()]
        messages: list[Any] = []
        data = bytearray()
        while not self._cut and (data or not messages):  # of what is begun the rest is on its way
            read = b""
            with suppress(OSError):
                read = os.read(self._connection.fileno(), ROOM)
            self._cut = not read
            data += read
            messages += _taken(data)
        if not messages:
            raise Lost
        return messages

    def pending(self) -> bool:
        """Whether a message, or the end, is there to be received; costs about a microsecond."""
        if self._cut:
            return True
        return bool(self._poll.poll(0)) if hasattr(self, "_poll") else self._connection.poll()

    def fileno(self) -> int:
        """For `multiprocessing.connection.wait`."""
        return self._connection.fileno()

    def close(self) -> None:
        _ours.discard(self)
        self._connection.close()


def _taken(data: bytearray) -> Iterator[Any]:
    """Take the whole messages from the front of what was read."""
    at = 0
    while (bounds := _bounds(data, at)) is not None:
        start, at = bounds
        yield pickle.loads(data[start:at])
    del data[:at]


def _bounds(data: bytearray, at: int) -> tuple[int, int] | None:
    """Where the message that begins there has its pickle; None if not all of it was read.

    `multiprocessing.connection` writes the length before it: as ``!i``, or -1 and ``!Q``.
    """
    start = at + _SHORT.size
    if len(data) < start:
        return None
    (length,) = _SHORT.unpack_from(data, at)
    if length < 0:
        start += _LONG.size
        if len(data) < start:
            return None
        (length,) = _LONG.unpack_from(data, at + _SHORT.size)
    return (start, start + length) if start + length <= len(data) else None


def _limit(fd: int) -> None:
    """Wait for no worker that was stopped in the middle of a message."""
    if not hasattr(socket, "AF_UNIX"):  # Windows, where a pipe is no socket
        return
    end = socket.socket(fileno=fd)
    end.setblocking(True)  # whatever socket.setdefaulttimeout() was told
    for way in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        end.setsockopt(socket.SOL_SOCKET, way, struct.pack("ll", STUCK, 0))
    end.detach()


def _close_all() -> None:
    for channel in list(_ours):
        channel.close()


if hasattr(select, "poll"):  # not Windows, which does not fork either
    os.register_at_fork(after_in_child=_close_all)

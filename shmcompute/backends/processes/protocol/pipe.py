"""`Pipe`: one end of the pipe that carries messages between a pool and a worker.

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
from multiprocessing.connection import Connection
from typing import Any


class Lost(Exception):  # noqa: N818  # it never leaves this package
    """The other end is gone."""


_ours: weakref.WeakSet[Pipe] = weakref.WeakSet()


READ = 1 << 16  # bytes read at once
_SHORT, _LONG = struct.Struct("!i"), struct.Struct("!Q")  # lengths of messages

STUCK = 10  # seconds without a byte in the middle of a message, after which an end counts as lost


class Pipe:
    """One end of a duplex pipe between a pool and one worker.

    The parent's ends are closed in every process forked from it, workers included: an end that
    lives on in a child would keep the worker behind it from seeing that its parent died.

    Attributes
    ----------
    fd : int
        The descriptor, to wait for.
    owed : bool
        Whether the other end was asked for an answer that is not here yet, all of it.
    """

    def __init__(self, connection: Connection[Any, Any], *, parent: bool) -> None:
        self.fd = connection.fileno()
        self.owed = False
        self._connection = connection
        self._cut = False  # whether the rest of a message did not come: what follows makes no sense
        if parent:
            _ours.add(self)
            _limit(self.fd)
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)

    def ask(self, message: object) -> None:
        """Send what will be answered."""
        self.owed = True
        self.send(message)

    def answer(self) -> Any:
        """Receive an answer that is there; `Lost` if there will be none."""
        self.owed = True  # until all of it is here
        if not self.pending():
            raise Lost  # its process ended, though a child of its own may hold the pipe open
        message = self.receive()
        self.owed = False
        return message

    def send(self, message: object) -> None:
        # What is sent is made of bytes, numbers and handles: it needs no reducers.
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        try:
            self._connection.send_bytes(data)
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
        messages: list[Any] = []
        data = bytearray()
        while not self._cut and (data or not messages):  # of what is begun the rest is on its way
            read = b""
            with suppress(OSError):
                read = os.read(self.fd, READ)
            self._cut = not read
            data += read
            messages += _messages(data)
        if not messages:
            raise Lost
        return messages

    def pending(self) -> bool:
        """Whether a message, or the end, is there to be received; costs about a microsecond."""
        return self._cut or bool(self._poll.poll(0))

    def close(self) -> None:
        _ours.discard(self)
        self._connection.close()


def _messages(data: bytearray) -> Iterator[Any]:
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
    end = socket.socket(fileno=fd)
    end.setblocking(True)  # whatever socket.setdefaulttimeout() was told
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        end.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", STUCK, 0))
    end.detach()


def _close_all() -> None:
    for pipe in list(_ours):
        pipe.close()


os.register_at_fork(after_in_child=_close_all)

"""`Pipe`: one end of the pipe that carries messages between a pool and a worker.

Only a parent and its own workers hold the two ends; nothing listens anywhere.
"""

from __future__ import annotations

import _socket
import os
import pickle
import socket
import struct
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from shmcompute.system.interrupts import SLICE
from shmcompute.system.unpatched import select


class Lost(Exception):  # noqa: N818  # it never leaves this package
    """The other end is gone."""


_ours: weakref.WeakSet[Pipe] = weakref.WeakSet()


READ = 1 << 16  # bytes read at once,
LARGE = 1 << 20  # and of a long message
_MOST = (1 << 31) - 1  # bytes that the short one can tell of
_SHORT, _LONG = struct.Struct("!i"), struct.Struct("!Q")  # lengths of messages

# A write to a process that has died is an error, not the end of this one (SIGPIPE).
_FLAGS = socket.MSG_DONTWAIT | getattr(socket, "MSG_NOSIGNAL", 0)


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
    end : int or None
        A descriptor that is ready once the process at the other end has ended. A process that is
        stopped is waited for, also in the middle of a message, as long as the caller has time.
    """

    def __init__(self, connection: Connection[Any, Any], *, parent: bool) -> None:
        self.owed = False
        self.end: int | None = None
        # Of its own, which `connection` does not close.
        # Not `socket.socket`: gevent's and eventlet's let others go on, and do not block.
        self._socket = _socket.socket(fileno=os.dup(connection.fileno()))
        self._socket.setblocking(True)  # whatever socket.setdefaulttimeout() was told
        self._cut = False  # whether the rest of a message did not come: what follows makes no sense
        self.fd = self._socket.fileno()
        if parent:
            _ours.add(self)
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)

    def ask(self, message: object, deadline: float | None = None) -> None:
        """Send what will be answered; `Lost` if that takes longer than there is time."""
        self.owed = True
        self.send(message, deadline)

    def answer(self, deadline: float | None = None) -> Any:
        """Receive an answer that is there; `Lost` if there will be none."""
        self.owed = True  # until all of it is here
        if not self.pending():
            raise Lost  # its process ended, though a child of its own may hold the pipe open
        message = self.receive(deadline)
        self.owed = False
        return message

    def send(self, message: object, deadline: float | None = None) -> None:
        # What is sent is made of bytes, numbers and handles: it needs no reducers.
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._write(_header(len(data)) + data, deadline)

    def _write(self, data: bytes, deadline: float | None) -> None:
        left = memoryview(data)
        while left:
            try:
                left = left[self._socket.send(left, _FLAGS) :]
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline)
            except OSError as error:
                raise Lost from error

    def receive(self, deadline: float | None = None) -> Any:
        data = bytearray()
        while (bounds := _bounds(data, 0)) is None:
            data += self._read(_lacking(data), deadline)
        return pickle.loads(memoryview(data)[slice(*bounds)])

    def _read(self, most: int, deadline: float | None = None) -> bytes:
        """Some bytes, as soon as there are any; `Lost` if none will come, or not in time."""
        if self._cut:
            raise Lost
        self._cut = True  # unless all goes well
        while True:
            try:
                read = self._socket.recv(most, _FLAGS)
                break
            except BlockingIOError:
                self._wait(select.POLLIN, deadline)
            except OSError as error:
                raise Lost from error
        if not read:
            raise Lost
        self._cut = False
        return read

    def _wait(self, event: int, deadline: float | None) -> None:
        """Return when bytes come, or go; `Lost` when the other process ends, or time is up."""
        poll = select.poll()
        poll.register(self.fd, event)
        if self.end is not None:
            poll.register(self.end, select.POLLIN)
        while not (ready := dict(poll.poll(1000 * SLICE))):
            if deadline is not None and time.monotonic() >= deadline:
                raise Lost
        if self.fd not in ready:
            raise Lost

    def receive_all(self) -> list[Any]:
        """The messages that are there, at least one; small ones come by one read together."""
        messages: list[Any] = []
        data = bytearray()
        with suppress(Lost):
            while data or not messages:  # of what is begun the rest is on its way
                data += self._read(max(READ, _lacking(data)))
                messages += _messages(data)
        if not messages:
            raise Lost
        return messages

    def pending(self) -> bool:
        """Whether a message, or the end, is there to be received; costs about a microsecond."""
        return self._cut or bool(self._poll.poll(0))

    def close(self) -> None:
        _ours.discard(self)
        self._socket.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # it was not made
            self._socket.close()  # without the warning of one that nobody has closed


def _messages(data: bytearray) -> Iterator[Any]:
    """Take the whole messages from the front of what was read."""
    at = 0
    while (bounds := _bounds(data, at)) is not None:
        start, at = bounds
        yield pickle.loads(data[start:at])
    del data[:at]


def _bounds(data: bytearray, at: int) -> tuple[int, int] | None:
    """Where the message that begins there has its pickle; None if not all of it was read.

    See `_header`.
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


def _header(length: int) -> bytes:
    """What stands before a pickle: its length, as `multiprocessing.connection` writes it."""
    if length <= _MOST:
        return _SHORT.pack(length)
    return _SHORT.pack(-1) + _LONG.pack(length)


def _lacking(data: bytearray) -> int:
    """How many bytes of the first message to ask for next."""
    if len(data) < _SHORT.size:
        return _SHORT.size - len(data)
    (length,) = _SHORT.unpack_from(data, 0)
    start = _SHORT.size
    if length < 0:
        start += _LONG.size
        if len(data) < start:
            return start - len(data)
        (length,) = _LONG.unpack_from(data, _SHORT.size)
    return min(int(start + length - len(data)), LARGE)


def _close_all() -> None:
    for pipe in list(_ours):
        pipe.close()


os.register_at_fork(after_in_child=_close_all)

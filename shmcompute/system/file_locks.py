"""Where the locks of a segment stand: bytes of its own file, far behind its end.

A lock on a range of bytes can stand where the file has none. It is the kernel's, who drops it when
its owner dies. Owner is the *open file description* (``F_OFD_SETLK``), not the process: so whoever
wants a lock opens the file anew, and threads, forked children and other processes exclude each
other alike. (POSIX's older locks go when the process closes *any* descriptor of the file, as
mapping, listing and attaching do.)

A description lives as long as anybody has it, so a forked child closes at once what it inherits:
else its parent's death would go unnoticed.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from shmcompute.errors import StorageError

FIRST = 1 << 62  # where locks begin: no file is that long
_SOON, _LATE = 5e-5, 5e-3  # seconds between two looks, the first and the longest
_WORD = struct.Struct("<q")


class Mark(Protocol):
    """A note beside the data that somebody holds the lock; it stays when he dies."""

    def read(self, fd: int) -> int:
        """The process that holds, or held, the lock; 0 if it was released."""

    def set(self, fd: int, pid: int) -> None:
        """Note that this process does."""

    def clear(self, fd: int) -> None:
        """Note that nobody does."""


@dataclass(frozen=True)
class Word:
    """A word of the file that nobody else uses."""

    at: int

    def read(self, fd: int) -> int:
        found = os.pread(fd, _WORD.size, self.at)
        return int(_WORD.unpack(found)[0]) if len(found) == _WORD.size else 0

    def set(self, fd: int, pid: int) -> None:
        os.pwrite(fd, _WORD.pack(pid), self.at)

    def clear(self, fd: int) -> None:
        os.pwrite(fd, _WORD.pack(0), self.at)


@dataclass(frozen=True)
class Tail:
    """A few bytes behind the end of a file that has no room inside; there only while it is held."""

    magic = b"\x93SHMLOCK"

    def _at(self, fd: int) -> int:
        """Where the note stands, or where there would be one."""
        size = os.fstat(fd).st_size
        at = size - len(self.magic) - _WORD.size
        return at if at >= 0 and os.pread(fd, len(self.magic), at) == self.magic else size

    def read(self, fd: int) -> int:
        found = os.pread(fd, _WORD.size, self._at(fd) + len(self.magic))
        return int(_WORD.unpack(found)[0]) if found else 0

    def set(self, fd: int, pid: int) -> None:
        os.pwrite(fd, self.magic + _WORD.pack(pid), self._at(fd))

    def clear(self, fd: int) -> None:
        os.ftruncate(fd, self._at(fd))


class FileLocks:
    """A description of a segment's file that this process alone has, and locks on it.

    Parameters
    ----------
    open_ : callable
        Opens the file anew, for reading and writing.
    byte : int
        The byte that stands for the segment.
    mark : Mark
        Where a holder of that byte leaves a note.
    """

    fd = -1  # before it is opened, and once it is closed

    def __init__(
        self, open_: Callable[[], int], byte: int = FIRST, mark: Mark | None = None
    ) -> None:
        if not known():
            raise StorageError("this platform has no locks that end with who holds them")
        self.byte, self.mark = byte, mark or Tail()
        self._pid = os.getpid()
        with _forking:  # who forks now waits until the child will know of it
            self.fd = open_()
            _open.add(self.fd)
        found = os.fstat(self.fd)
        self.key = found.st_dev, found.st_ino, byte

    @property
    def ours(self) -> bool:
        """Whether it was opened here, not in the process that forked this one."""
        return self._pid == os.getpid()

    def take(self, byte: int) -> bool:
        """Lock a byte if nobody else has; whether that is so."""
        try:
            self._control("F_OFD_SETLK", byte, fcntl.F_WRLCK)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        return True

    def wait(self, byte: int, timeout: float | None) -> bool:
        """Lock a byte, waiting for whoever has it, so many seconds at most; whether it is had."""
        if timeout is None:  # the kernel wakes us; a signal's handler runs meanwhile
            self._control("F_OFD_SETLKW", byte, fcntl.F_WRLCK)
            return True
        end, pause = time.monotonic() + timeout, _SOON
        while not self.take(byte):
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, _LATE)
        return True

    def taken(self, byte: int) -> bool:
        """Whether anybody else holds a byte: who died does not."""
        return self._control("F_OFD_GETLK", byte, fcntl.F_WRLCK) != fcntl.F_UNLCK

    def close(self) -> None:
        """Let go of all locks."""
        if self.fd >= 0 and self.ours:  # a child closed it long ago
            with _forking:
                _open.discard(self.fd)
                # One step for the interpreter: an interrupt between two would leave it open, and
                # locked, or have it closed twice.
                list(map(os.close, map(vars(self).pop, ("fd",))))

    def __del__(self) -> None:
        self.close()

    def _control(self, command: str, byte: int, kind: int) -> int:
        asked = _flock(kind, byte)
        try:
            told = fcntl.fcntl(self.fd, getattr(fcntl, command), asked)
        except OSError as error:
            if isinstance(error, (BlockingIOError, PermissionError)):
                raise
            raise StorageError(f"the file system takes no locks: {error}") from error
        return _kind(told)


if sys.platform == "darwin":  # start, length, pid, kind, whence
    _FORM, _KIND_AT = struct.Struct("qqihh"), 3

    def _flock(kind: int, byte: int) -> bytes:
        return _FORM.pack(byte, 1, 0, kind, os.SEEK_SET)
else:  # kind, whence, start, length, pid
    _FORM, _KIND_AT = struct.Struct("hhqqi4x"), 0

    def _flock(kind: int, byte: int) -> bytes:
        return _FORM.pack(kind, os.SEEK_SET, byte, 1, 0)


def _kind(told: bytes) -> int:
    return int(_FORM.unpack(told)[_KIND_AT])


def known() -> bool:
    """Whether this platform has locks whose owner is a description."""
    return hasattr(fcntl, "F_OFD_SETLK")


_forking = threading.RLock()  # held while a process forks
_open: set[int] = set()  # descriptors of all FileLocks


def _forked() -> None:
    for fd in _open:
        os.close(fd)
    _open.clear()
    _forking.release()


os.register_at_fork(
    before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_forked
)

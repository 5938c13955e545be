"""Where the locks of a segment stand: bytes of its own file, far behind its end.

A lock on a range of bytes can stand where the file has none. The kernel keeps it, and drops it when
its owner dies. The owner is the *open file description* (``F_OFD_SETLK``), not the process: so each
`FileLocks` opens the file anew, and threads, forked children and other processes exclude each other
alike. (POSIX's older locks go when the process closes *any* descriptor of the file, as mapping,
listing and attaching do.)

A description lives as long as any process has a descriptor of it. So a forked child closes those
that it inherits at once: else the kernel would not drop the locks of its parent when that dies.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shmcompute.errors import StorageError

FIRST = 1 << 62  # where locks begin: no file is that long
_FIRST_PAUSE, _LONGEST_PAUSE = 5e-5, 5e-3  # seconds between two attempts of a wait with a timeout
_POLLED = 1 << 60  # from a byte to that of those who wait for it with a timeout
_PID = struct.Struct("<q")
_APPENDED = struct.Struct("<8sQQQq")  # magic, device, inode, size of the file before it, process
_MAGIC = b"\x93SHMLOCK"


def file_id(fd: int) -> tuple[int, int]:
    """Device and inode of the file behind a descriptor: the same for all its names."""
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino


def flock_holders(root: Path = Path("/")) -> dict[tuple[int, int], set[int]]:
    """The processes that have taken each ``flock`` there is, by device and inode (Linux only).

    A forked child shares the lock of its parent, which alone is told of.
    """
    holders: dict[tuple[int, int], set[int]] = {}
    with suppress(OSError):
        for line in (root / "proc/locks").read_text().splitlines():
            words = line.split()
            if words[1] == "FLOCK" and int(words[4]) > 0:  # 0: of another PID namespace
                major, minor, inode = words[5].split(":")
                device = os.makedev(int(major, 16), int(minor, 16))
                holders.setdefault((device, int(inode)), set()).add(int(words[4]))
    return holders


class Note(Protocol):
    """The number of the process that holds a lock, written into the file itself.

    The kernel drops the lock of a process that dies, but the note stays: so the next holder learns
    that the last one did not release it, and an error can name who holds it.
    """

    def read(self, fd: int) -> int:
        """The process that holds, or held, the lock; 0 if it was released."""
        ...

    def write(self, fd: int, pid: int) -> None:
        """Note that this process holds the lock."""
        ...

    def clear(self, fd: int) -> None:
        """Note that nobody does."""
        ...


@dataclass(frozen=True)
class HolderNote:
    """A note in eight bytes of the file that nothing else uses, from `offset` on."""

    offset: int

    def read(self, fd: int) -> int:
        content = os.pread(fd, _PID.size, self.offset)
        return int(_PID.unpack(content)[0]) if len(content) == _PID.size else 0

    def write(self, fd: int, pid: int) -> None:
        os.pwrite(fd, _PID.pack(pid), self.offset)

    def clear(self, fd: int) -> None:
        os.pwrite(fd, _PID.pack(0), self.offset)


@dataclass(frozen=True)
class AppendedNote:
    """A note behind the end of a file without such bytes (a ``.npy``), cut off at the release.

    Whether one stands there must not be guessed from a mark: that may be anybody's data, which
    would be cut off. So a note tells which file it was written into, and how long that was: no
    other bytes at this file's end are one, be they a copy of a note. And none is looked for in
    what the file itself claims.

    Parameters
    ----------
    claimed : callable
        How many bytes of the open file are its own by what it says.
    """

    claimed: Callable[[int], int]

    def read(self, fd: int) -> int:
        pid, start = self._last(fd)
        return pid if pid and start >= self.claimed(fd) else 0

    def write(self, fd: int, pid: int) -> None:
        if self.read(fd):
            self.clear(fd)
        size = os.fstat(fd).st_size
        os.pwrite(fd, _APPENDED.pack(_MAGIC, *file_id(fd), size, pid), size)

    def clear(self, fd: int) -> None:
        """Cut off what `write` has left, if nobody has written the file anew meanwhile."""
        pid, start = self._last(fd)
        if pid:
            os.ftruncate(fd, start)

    @staticmethod
    def _last(fd: int) -> tuple[int, int]:
        """What the file's last bytes tell, 0 if they are no note of this file; where they start."""
        start = max(0, os.fstat(fd).st_size - _APPENDED.size)
        content = os.pread(fd, _APPENDED.size, start)
        if len(content) < _APPENDED.size:
            return 0, start
        *proof, pid = _APPENDED.unpack(content)
        return (int(pid) if tuple(proof) == (_MAGIC, *file_id(fd), start) else 0), start


class FileLocks:
    """An open file description of a segment's file that this process alone has, and its locks.

    Parameters
    ----------
    open_ : callable
        Opens the file anew, for reading and writing: the descriptor must not be a duplicate.
    byte : int
        The byte whose lock is the lock of the segment.
    note : Note
        Where the holder of that byte says so.
    """

    fd = -1  # before it is opened, and once it is closed

    def __init__(self, open_: Callable[[], int], note: Note, byte: int = FIRST) -> None:
        if not hasattr(fcntl, "F_OFD_SETLK"):
            raise StorageError("this platform has no locks that end with who holds them")
        self.byte, self.note = byte, note
        self._pid = os.getpid()
        with _fork_lock:  # between these two steps a forked child would not know what to close
            self.fd = open_()
            _descriptors.add(self.fd)
        self.key = *file_id(self.fd), byte

    @property
    def ours(self) -> bool:
        """Whether it was opened here, not in the process that forked this one."""
        return self._pid == os.getpid()

    def take(self, byte: int) -> bool:
        """Lock a byte if nobody else has; whether that is so."""
        try:
            self._control("F_OFD_SETLK", byte)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        return True

    def wait(self, byte: int, timeout: float | None) -> bool:
        """Lock a byte, waiting for whoever has it, so many seconds at most; whether it is had.

        In the kernel's queue nobody can wait but for good, and whoever queues there, or comes back
        at once, would always be faster than those who look now and then. So while there are such,
        which they tell by a lock that all of them share, newcomers do as they do, after a pause.
        """
        if timeout == 0:
            return self.take(byte)
        others_poll = self.taken(byte + _POLLED)
        if timeout is None:
            return self._queue(byte) if not others_poll else self._poll(byte, math.inf)
        end = time.monotonic() + timeout
        if not others_poll and self.take(byte):
            return True
        self._control("F_OFD_SETLK", byte + _POLLED, fcntl.F_RDLCK)
        try:
            return self._poll(byte, end, _LONGEST_PAUSE if others_poll else _FIRST_PAUSE)
        finally:
            self._control("F_OFD_SETLK", byte + _POLLED, fcntl.F_UNLCK)

    def _queue(self, byte: int) -> bool:
        """Wait for good; the kernel wakes us, and a signal's handler runs meanwhile."""
        self._control("F_OFD_SETLKW", byte)
        return True

    def _poll(self, byte: int, end: float, pause: float = _LONGEST_PAUSE) -> bool:
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(pause, left))
            if self.take(byte):
                return True
            if end == math.inf and not self.taken(byte + _POLLED):
                return self._queue(byte)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return False

    def taken(self, byte: int) -> bool:
        """Whether anybody else holds a byte: who died does not."""
        return self._control("F_OFD_GETLK", byte) != fcntl.F_UNLCK

    def close(self) -> None:
        """Let go of all locks."""
        if self.fd >= 0 and self.ours:  # a forked child closed it at once: see below
            with _fork_lock:
                _descriptors.discard(self.fd)
                # `map` takes the attribute away and closes it in one bytecode instruction. An
                # interrupt between two would leave the file open and locked, or close it twice.
                list(map(os.close, map(vars(self).pop, ("fd",))))

    def __del__(self) -> None:
        self.close()

    def _control(self, command: str, byte: int, kind: int = fcntl.F_WRLCK) -> int:
        """Have `fcntl` try a lock of this kind; the kind of lock that it tells of."""
        fields = {"kind": kind, "whence": os.SEEK_SET, "start": byte, "len": 1, "pid": 0}
        try:
            flock = _FLOCK.pack(*map(fields.__getitem__, _FIELDS))
            answer = fcntl.fcntl(self.fd, getattr(fcntl, command), flock)
        except OSError as error:
            if isinstance(error, (BlockingIOError, PermissionError)):
                raise
            raise StorageError(f"the file system takes no locks: {error}") from error
        return int(_FLOCK.unpack(answer)[_FIELDS.index("kind")])


# C's `struct flock`.
if sys.platform == "darwin":
    _FLOCK, _FIELDS = struct.Struct("qqihh"), ("start", "len", "pid", "kind", "whence")
else:
    _FLOCK, _FIELDS = struct.Struct("hhqqi4x"), ("kind", "whence", "start", "len", "pid")

_fork_lock = threading.RLock()  # held while a process forks
_descriptors: set[int] = set()  # of all FileLocks


def _close_inherited() -> None:
    """In a forked child: its copies of our descriptors would keep our locks after our death."""
    for fd in _descriptors:
        os.close(fd)
    _descriptors.clear()
    _fork_lock.release()


os.register_at_fork(
    before=_fork_lock.acquire, after_in_parent=_fork_lock.release, after_in_child=_close_inherited
)

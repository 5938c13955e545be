"""``storage="array"``: the fallback, on a lock-free `multiprocessing.Array`.

Its memory is a file that was unlinked as soon as it was made, under /dev/shm or, where that is
too small, in the temp directory: it needs no name and can't outlive its processes. A process that
already runs reaches it through the maker's descriptor: on Linux by opening ``/proc/<pid>/fd/<n>``
(no socket, no thread, any number of times), elsewhere by `multiprocessing.reduction.DupFd`, which
can be received once.

Relied on within ``multiprocessing``: a ctypes array's ``_wrapper._state`` holds its arena, and an
arena its ``fd`` and ``size``. Both have stood so since Python 3.3.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import secrets
import shutil
import sys
import tempfile
import weakref
from dataclasses import dataclass, field, replace
from multiprocessing import reduction
from typing import Any

import numpy as np

from shmcompute.config import setting
from shmcompute.errors import (
    SegmentExistsError,
    SegmentNotFoundError,
    StorageError,
    StorageFullError,
)
from shmcompute.storage.layout import Layout
from shmcompute.storage.names import check_name
from shmcompute.storage.segment import Segment, live
from shmcompute.storage.shm import FOLDER
from shmcompute.system.file_locks import FIRST, FileLocks, HolderNote, file_id
from shmcompute.typing import Array

ALIGN = 64  # bytes: a cache line, and enough for longdouble; multiprocessing aligns to 8
WORD = 8  # bytes
LARGE = 1 << 20  # bytes
SLACK = 8 << 20  # multiprocessing may take this much more than it is asked for


def by_proc() -> bool:
    """Whether a descriptor of another process can be opened under /proc."""
    return sys.platform == "linux" and setting("SEND_DESCRIPTORS") != "1"


@dataclass(frozen=True)
class ArrayHandle:
    """A descriptor of the process that made the array, and where in it the array lies."""

    name: str
    layout: Layout = field(compare=False)
    pid: int = field(compare=False)
    fd: int = field(compare=False)
    serial: tuple[int, int]
    start: int
    sent: Any = field(default=None, compare=False)
    kind = "array"

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.name, self.layout, self.pid, self.fd, self.serial, self.start)
        sent = None if by_proc() else reduction.DupFd(self.fd)
        return ArrayHandle, (*fields, sent)

    def map(self) -> tuple[Segment, Array]:
        fd = self._descriptor()
        try:
            first = self.start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            length = self.start - first + max(1, self.layout.nbytes)
            base = mmap.mmap(fd, length, offset=first)
        except (OSError, ValueError, OverflowError) as error:
            raise StorageError(f"array {self.name!r} can't be mapped: {error}") from error
        finally:
            os.close(fd)
        memory = np.frombuffer(base, np.uint8, count=self.layout.nbytes, offset=self.start - first)
        return Segment(self, self.layout, base, memory), self.layout.over(memory)

    def locks(self, layout: Layout) -> FileLocks:
        if not by_proc():
            raise StorageError(
                f"array {self.name!r} can't be locked on this platform, where a descriptor that is "
                'sent shares its locks; use storage="shm" or "file"'
            )
        note = HolderNote(self.start + _note_offset(layout.nbytes))
        return FileLocks(self._descriptor, FIRST + self.start, note)

    def adopt(self, segment: Segment, array: Array) -> None:
        """Others will reach it through a descriptor of ours: the maker may end before we do."""
        fd = self._descriptor()
        weakref.finalize(array.base, os.close, fd)
        segment.handle = replace(self, pid=os.getpid(), fd=fd, sent=None)
        segment.own(_nothing)

    def _descriptor(self) -> int:
        try:
            if self.sent is not None:
                return int(self.sent.detach())
            fd = os.open(f"/proc/{self.pid}/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise self._gone() from error
        if file_id(fd) != self.serial:
            os.close(fd)
            raise self._gone()
        return fd

    def _gone(self) -> SegmentNotFoundError:
        return SegmentNotFoundError(
            f"array {self.name!r} is gone: the process {self.pid} that made it has ended or has "
            'closed it; use storage="shm" or "file" for what is to outlive its maker'
        )


def create(layout: Layout, name: str | None) -> tuple[Segment, Array]:
    """Make an array; its memory is reserved and zero. Its name is a label: none attach by it."""
    if name is not None:
        _check_label(name)
    asked = _rounded(_note_offset(layout.nbytes) + WORD + ALIGN)
    _check_free(asked)
    try:
        raw: Any = multiprocessing.Array("b", asked, lock=False)
        arena, start, _ = raw._wrapper._state[0]
        # Reserve the whole arena: later arrays may be given what is left of it.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(arena.fd, 0, arena.size)
    except (OSError, MemoryError) as error:
        raise _full(asked, error) from error
    memory = np.frombuffer(raw, np.uint8)
    skip = -memory.__array_interface__["data"][0] % ALIGN
    memory = np.frombuffer(raw, np.uint8, count=layout.nbytes, offset=skip)
    label = name if name is not None else f"array_{secrets.token_hex(8)}"
    handle = ArrayHandle(label, layout, os.getpid(), arena.fd, file_id(arena.fd), start + skip)
    # The memory has no name to remove; the descriptor goes with the last view.
    return Segment(handle, layout, raw, memory, _nothing), layout.over(memory)


def _rounded(size: int) -> int:
    """A size with few digits, at most 1/16 more, of large ones 1/128.

    For each size that there ever was `multiprocessing` keeps a type for good.
    """
    step = 1 << max(6, size.bit_length() - (5 if size < LARGE else 8))
    return -(-size // step) * step


def _note_offset(nbytes: int) -> int:
    """Where the lock's `HolderNote` stands, counted from the start of an array of so many bytes."""
    return -(-nbytes // WORD) * WORD


def _check_label(name: str) -> None:
    """A label is no name to attach by, but what would not do as a name does not do as a label."""
    check_name(name)
    for segment in live():
        if segment.handle.kind == "array" and segment.handle.name == name:
            raise SegmentExistsError(f"an array called {name!r} exists; choose another name")


def _nothing() -> None:
    pass


def _places() -> list[str]:
    """Where multiprocessing may put the memory."""
    return [place for place in (str(FOLDER), tempfile.gettempdir()) if os.path.isdir(place)]


def _check_free(asked: int) -> None:
    # multiprocessing writes zeros before we can reserve: look first.
    if not any(shutil.disk_usage(place).free >= asked + SLACK for place in _places()):
        raise _full(asked, None)


def _full(asked: int, error: BaseException | None) -> StorageFullError:
    free = ", ".join(f"{shutil.disk_usage(place).free} in {place}" for place in _places())
    return StorageFullError(
        f"no room for an array of {asked} bytes; free: {free}. Close arrays, set TMPDIR to a "
        'larger disk, or use storage="file"' + (f" ({error})" if error else "")
    )

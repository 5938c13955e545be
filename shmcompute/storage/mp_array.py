"""``storage="array"``: the fallback, on a lock-free `multiprocessing.Array`.

Its memory is a file that was unlinked as soon as it was made (see `array_heap`): it needs no name
and can't outlive its processes. A process that already runs reaches it through the maker's
descriptor: on Linux by opening ``/proc/<pid>/fd/<n>`` (no socket, no thread, any number of times),
where that is not to be had by `multiprocessing.reduction.DupFd`, which can be received once.
"""

from __future__ import annotations

import mmap
import os
import secrets
import sys
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
)
from shmcompute.storage import array_heap
from shmcompute.storage.layout import Layout
from shmcompute.storage.mapping import map_file
from shmcompute.storage.names import check_name
from shmcompute.storage.segment import Segment, live, mapped
from shmcompute.system.file_locks import FIRST, FileLocks, HolderNote, file_id
from shmcompute.typing import Array

ALIGN = 64  # bytes: a cache line, and enough for longdouble; multiprocessing aligns to 8
WORD = 8  # bytes
LARGE = 1 << 20  # bytes


def _reopens() -> bool:
    """Whether a process can open its own descriptors anew, under /proc."""
    linux = sys.platform == "linux" and setting("SEND_DESCRIPTORS") != "1"
    return linux and os.path.exists("/proc/self/fd")


def _opened_by_others(fd: int) -> bool:
    """Whether other processes of this user can open a descriptor of ours, under /proc."""
    # It may be another namespace's. And what is root's there is closed to them: it is so of a
    # process that was root and became this user, or whose program has capabilities.
    return (
        _reopens()
        and os.readlink("/proc/self") == str(os.getpid())
        and os.stat("/proc/self/fd").st_uid == os.fstat(fd).st_uid == os.geteuid()
    )


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
        segment = mapped(self)  # one that has ended is only named, for others to forget
        sends = segment is not None and not segment.ended and not _opened_by_others(self.fd)
        return ArrayHandle, (*fields, reduction.DupFd(self.fd) if sends else None)

    def map(self) -> tuple[Segment, Array]:
        fd = self._descriptor()
        try:
            first = self.start // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            length = self.start - first + max(1, self.layout.nbytes)
            base = map_file(fd, length, offset=first)
        except (OSError, ValueError, OverflowError) as error:
            os.close(fd)
            raise StorageError(f"array {self.name!r} can't be mapped: {error}") from error
        handle = self
        if self.sent is None:
            os.close(fd)
        else:  # it came once: what needs it again finds ours
            handle = self._kept(fd, base)
        memory = np.frombuffer(base, np.uint8, count=self.layout.nbytes, offset=self.start - first)
        return Segment(handle, self.layout, base, memory), self.layout.over(memory)

    def locks(self, layout: Layout) -> FileLocks:
        if not _reopens():
            raise StorageError(
                f"array {self.name!r} can't be locked here: without /proc its descriptor can't be "
                'opened anew, and one that is sent shares its locks; use storage="shm" or "file"'
            )
        note = HolderNote(self.start + _note_offset(layout.nbytes))
        return FileLocks(self._descriptor, note, FIRST + self.start)

    def adopt(self, segment: Segment, array: Array) -> None:
        """Others will reach it through a descriptor of ours: the maker may end before we do."""
        if self.sent is None:
            segment.handle = self._kept(self._descriptor(), array.base)
        segment.own(_nothing)

    def _kept(self, fd: int, base: Any) -> ArrayHandle:
        """The handle by a descriptor of ours, which is kept as long as the mapping."""
        weakref.finalize(base, os.close, fd)
        return replace(self, pid=os.getpid(), fd=fd, sent=None)

    def _descriptor(self) -> int:
        try:
            if self.sent is not None:
                return int(self.sent.detach())
            fd = os.open(f"/proc/{self.pid}/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC)
        except PermissionError as error:
            raise StorageError(
                f"array {self.name!r} can't be opened: {error}. Its maker has changed users since, "
                "or its program has capabilities that ours lacks"
            ) from error
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
    raw, fd, start = array_heap.allocate(asked)
    memory = np.frombuffer(raw, np.uint8)
    skip = -memory.__array_interface__["data"][0] % ALIGN
    memory = np.frombuffer(raw, np.uint8, count=layout.nbytes, offset=skip)
    label = name if name is not None else f"array_{secrets.token_hex(8)}"
    handle = ArrayHandle(label, layout, os.getpid(), fd, file_id(fd), start + skip)
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

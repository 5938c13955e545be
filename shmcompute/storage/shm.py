"""``storage="shm"``: named POSIX shared memory.

Order of making, which leaves no half-made segment under any name and no moment at which a reaper
could take a new one for an orphan: on Linux a nameless file in /dev/shm is reserved
(`posix_fallocate`: `ftruncate` reserves nothing, and the write that finds tmpfs full dies of
SIGBUS), described, locked, and only then linked to its name. Elsewhere, ``shm_open`` with
``O_EXCL`` comes first and the lock next, and the maker looks again whether the name is still its
own.

`multiprocessing.shared_memory.SharedMemory` is not used for this: before Python 3.13 it registers
each segment with a resource tracker that unlinks what others still use (gh-82300), and its
``close()`` unmaps under live arrays (numpy#23305).

The file is long because making, attaching and removing rely on one order of lock and name, which
would be hard to check from several files.

The file is long because the order of making, attaching and removing is one protocol, which must be
read together.
"""

from __future__ import annotations

import _posixshmem  # type: ignore[import-not-found]  # what the standard library's SharedMemory opens segments with
import errno
import mmap
import os
import stat
import struct
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from shmcompute.errors import (
    SegmentExistsError,
    SegmentFormatError,
    SegmentNotFoundError,
    StorageError,
)
from shmcompute.storage import layout as layouts
from shmcompute.storage import liveness, own_names, segment_cache
from shmcompute.storage.layout import Layout
from shmcompute.storage.mapping import map_file
from shmcompute.storage.names import PREFIX, candidates, check_name
from shmcompute.storage.segment import Segment, is_made
from shmcompute.storage.shm_space import FOLDER, reserve
from shmcompute.system import limits
from shmcompute.system.file_locks import FileLocks, HolderNote
from shmcompute.typing import Array

_READABLE: bool = sys.platform == "linux"  # macOS only maps shared memory
# A lease of another user's on a file of his would have us wait for most of a minute.
_NO_WAIT: int = os.O_NONBLOCK if sys.platform == "linux" else 0
SEAL = struct.Struct("<Q")  # an inode


@dataclass(frozen=True)
class ShmHandle:
    """A name, and the inode behind it: the name alone could be another segment's by now."""

    name: str
    serial: int
    kind = "shm"

    def map(self) -> tuple[Segment, Array]:
        segment, array = attach(self.name)
        if segment.handle != self:
            raise SegmentNotFoundError(
                f"the segment {self.name!r} is gone; another one has its name now"
            )
        return segment, array

    def locks(self, layout: Layout) -> FileLocks:
        if liveness.by_file():
            return FileLocks(self._lock_file, HolderNote(0))
        # The trailer's pages begin with zeros: its header and its record leave some.
        return FileLocks(self._reopen, HolderNote(layouts.padded(layout.nbytes)))

    def _reopen(self) -> int:
        fd = open_segment(self.name)
        if os.fstat(fd).st_ino == self.serial:
            return fd
        os.close(fd)
        raise SegmentNotFoundError(f"the segment {self.name!r} is gone; another one has its name")

    def _lock_file(self) -> int:
        os.close(self._reopen())  # there is none for a segment that is gone
        return liveness.held_file(self.name)

    def adopt(self, segment: Segment, array: Array) -> None:
        take_away = partial(remove, self.name, self.serial)
        segment.own(take_away)
        own_names.adopt(self.name, take_away)


def unavailable() -> str | None:
    """Why there is no shared memory on this host, or None if there is."""
    effective = os.access in os.supports_effective_ids
    if sys.platform == "linux" and not os.access(
        FOLDER, os.W_OK | os.X_OK, effective_ids=effective
    ):
        return f"{FOLDER} is missing or not writable"
    return None


def create(layout: Layout, name: str | None) -> tuple[Segment, Array]:
    """Make a segment. Its memory is reserved; it is zero, or that of an array closed before."""
    if name is not None:
        check_name(name)
    if (reason := unavailable()) is not None:
        raise StorageError(f'storage="shm": {reason}; use storage="array"')
    data, tail = layouts.padded(layout.nbytes), layouts.trailer(layout)
    block = segment_cache.take(data, data + len(tail), name) if _nameless() else None
    cached = None if block is None else _create_cached(block, layout, tail, name)
    return _create_new(layout, data, tail, name) if cached is None else cached


def _create_new(layout: Layout, data: int, tail: bytes, name: str | None) -> tuple[Segment, Array]:
    build = partial(_fill, data=data, tail=tail)
    if not _nameless():
        fd, handle, lock = _create_posix(name, build)
        return _map(fd, handle, layout, lock, partial(remove, handle.name, handle.serial))
    made = _Making()
    try:
        return _create_linux(
            made, layout, data, segment_cache.cacheable(data + len(tail)), name, build
        )
    except BaseException:
        made.undo()
        raise


class _Making:
    """What there is so far of a segment in the making.

    An interrupt may come between any two instructions, and take with it what a call has just
    returned. So descriptors are put where they can be found by the instruction that opens them.

    Attributes
    ----------
    folder, opened : list of int
        The folder's descriptor, and the segment's, while they are to be closed.
    handle : ShmHandle or None
        From before it has a name.
    lends : bool
        Whether a segment, once it is whole, closes the descriptor.
    """

    def __init__(self) -> None:
        self.folder: list[int] = []
        self.opened: list[int] = []
        self.handle: ShmHandle | None = None
        self.lends = False

    def undo(self) -> None:
        """Close, and take away the name, unless the segment is whole and does so."""
        whole = self.handle is not None and is_made(self.handle)
        if self.handle is not None and not whole:
            remove(self.handle.name, self.handle.serial)
        if not (whole and self.lends):
            _close(self.opened)
        _close(self.folder)


def _close(descriptors: list[int]) -> None:
    """Close them, each once: it is out of the list when it is closed, in one instruction."""
    with suppress(IndexError):
        deque(map(os.close, iter(descriptors.pop, None)), 0)


def _create_cached(
    block: segment_cache.CachedBlock, layout: Layout, tail: bytes, name: str | None
) -> tuple[Segment, Array] | None:
    """A segment in the memory of one that was closed; None if somebody has removed that."""
    try:
        os.pwrite(block.fd, _sealed(tail, block.fd), block.length)
        for free_name in candidates(name):
            with suppress(FileExistsError):
                block.show(free_name)
                return _lend(block, layout, free_name, used=True)
        raise _name_exists(name)
    except BaseException as error:
        block.hide()
        segment_cache.keep(block)
        if isinstance(error, FileNotFoundError):
            return None
        raise


def _lend(
    block: segment_cache.CachedBlock, layout: Layout, free_name: str, *, used: bool = False
) -> tuple[Segment, Array]:
    """The segment in a block, which goes back to `segment_cache` with its last view."""
    memory = np.frombuffer(block.memory, np.uint8, count=layout.nbytes)
    handle, back = ShmHandle(free_name, block.serial), partial(segment_cache.keep, block)
    segment = Segment(handle, layout, memory, memory, block.hide, used=used, finally_=back)
    return segment, layout.over(memory)


def find(name: str) -> ShmHandle:
    """The handle of the segment that has that name now."""
    check_name(name)
    if (reason := unavailable()) is not None:
        raise StorageError(f'storage="shm": {reason}')
    fd = open_segment(name)
    try:
        return ShmHandle(name, os.fstat(fd).st_ino)
    finally:
        os.close(fd)


def attach(name: str) -> tuple[Segment, Array]:
    """Map the segment of that name, whoever made it; shape and dtype come from it."""
    fd = open_segment(check_name(name))  # a handle's name may have been anybody's
    lock = None
    try:
        lock = liveness.hold(fd, name)
        status = os.fstat(fd)
        if not status.st_nlink:
            raise SegmentNotFoundError(f"the segment {name!r} was removed just now")
        handle, layout = ShmHandle(name, status.st_ino), read_layout(fd, name)
        return _map(fd, handle, layout, lock, None, close_on_error=False)
    except BaseException:
        os.close(fd)
        if lock is not None:
            os.close(lock)
        raise


def open_segment(name: str) -> int:
    """A descriptor of a segment of this user; refuses links, foreign owners and what is no file."""
    try:
        fd: int = _posixshmem.shm_open(f"/{name}", os.O_RDWR | _NO_WAIT, mode=0o600)
    except FileNotFoundError:
        raise SegmentNotFoundError(
            f"no segment is called {name!r}; it was closed by its owner, its owner has died, it is "
            "another host's, or the name is wrong (python -m shmcompute ls lists what there is "
            "here; other hosts get the content, x.array)"
        ) from None
    except OSError as error:
        raise StorageError(f"segment {name!r} can't be opened: {error}") from error
    try:
        _check_ours(name, os.fstat(fd))
        return fd
    except BaseException as error:
        os.close(fd)
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise StorageError(f"segment {name!r} can't be looked at: {error}") from error
        raise


def _check_ours(name: str, status: os.stat_result) -> None:
    ours, regular = status.st_uid == os.geteuid(), stat.S_ISREG(status.st_mode)
    if ours and (regular or not _READABLE):  # elsewhere only segments have such names
        return
    if ours:
        raise SegmentFormatError(f"{name!r} is no segment but a {stat.filemode(status.st_mode)}")
    raise StorageError(
        f"segment {name!r} belongs to user {status.st_uid}, this process is user {os.geteuid()}: "
        "segments are shared between processes of one user only"
    )


def exists(name: str) -> bool:
    """Whether anything answers to that name."""
    try:
        os.close(open_segment(name))
    except SegmentNotFoundError:
        return False
    except StorageError:
        pass  # another user's, say
    return True


def read_layout(fd: int, name: str) -> Layout:
    """What the trailer of an open segment says; SegmentFormatError if it is not whole."""
    size = os.fstat(fd).st_size
    start = max(0, size - layouts.RECORD.size)
    tail = _bytes_of(fd, start, size)
    length = layouts.header_length(name, tail, size)
    return layouts.parse_trailer(name, _bytes_of(fd, start - length, start), tail)


def is_ours(fd: int, name: str) -> bool:
    """Whether an open segment is one of ours, whole or not.

    One with a name of the user's own is if its seal is that of its inode: a copy of a segment, or
    data that reads like one, is somebody's file.
    """
    if name.startswith(PREFIX):
        return True
    size = os.fstat(fd).st_size
    tail = _bytes_of(fd, max(0, size - layouts.RECORD.size), size)
    if not layouts.has_magic(tail) or len(tail) < layouts.RECORD.size:
        return False
    start = layouts.seal_offset(tail)
    stop = start + SEAL.size
    return stop <= size and _bytes_of(fd, start, stop) == SEAL.pack(os.fstat(fd).st_ino)


def _sealed(tail: bytes, fd: int) -> bytes:
    """A trailer that tells which file it was written into."""
    start = layouts.NOTE
    return tail[:start] + SEAL.pack(os.fstat(fd).st_ino) + tail[start + SEAL.size :]


def _bytes_of(fd: int, start: int, stop: int) -> bytes:
    if _READABLE:
        return os.pread(fd, stop - start, start)  # a hole read through a mapping takes a page
    if stop == start:
        return b""
    with mmap.mmap(fd, stop, access=mmap.ACCESS_READ) as view:
        return view[start:stop]


def _nameless() -> bool:
    """Whether a segment can be made without a name; it gets one by way of /proc."""
    if sys.platform != "linux" or not hasattr(os, "O_TMPFILE") or liveness.by_file():
        return False
    return os.path.exists("/proc/self/fd")


def _create_linux(
    made: _Making,
    layout: Layout,
    data: int,
    cacheable: bool,
    name: str | None,
    build: Callable[[int], None],
) -> tuple[Segment, Array]:
    try:
        _open_nameless(made)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT):
            # A sandbox whose /dev/shm has no O_TMPFILE.
            _close(made.folder)
            fd, handle, lock = _create_posix(name, build)
            return _map(fd, handle, layout, lock, partial(remove, handle.name, handle.serial))
        raise StorageError(f"{FOLDER} takes no new segment: {error}") from error
    fd = made.opened[0]
    build(fd)
    liveness.hold(fd, "")
    handle = _link(made, name)
    _close(made.folder)
    if cacheable:
        with suppress(OSError, ValueError):  # raised again below, unless it can do without
            made.lends = True
            block = segment_cache.CachedBlock(fd, FOLDER / handle.name, data)
            return _lend(block, layout, handle.name)
        made.lends = False
    mapped = _map(fd, handle, layout, None, partial(remove, handle.name, handle.serial), keep=True)
    _close(made.opened)
    return mapped


def _open_nameless(made: _Making) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    made.folder[:] = map(os.open, (FOLDER,), (flags,))
    within = partial(os.open, dir_fd=made.folder[0])
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
    made.opened[:] = map(within, (".",), (flags,), (0o600,))


def _link(made: _Making, name: str | None) -> ShmHandle:
    """Give it a name."""
    (fd,), (folder,) = made.opened, made.folder
    serial = os.fstat(fd).st_ino  # before it has a name: after that nothing may fail
    for free_name in candidates(name):
        made.handle = ShmHandle(free_name, serial)
        with (
            suppress(FileExistsError),
            own_names.given(free_name, partial(remove, free_name, serial)),
        ):
            os.link(f"/proc/self/fd/{fd}", free_name, dst_dir_fd=folder, follow_symlinks=True)
            return made.handle
    raise _name_exists(name)


def _create_posix(
    name: str | None, build: Callable[[int], None]
) -> tuple[int, ShmHandle, int | None]:
    for free_name in candidates(name):
        try:
            with own_names.given(free_name, partial(remove, free_name, None)):
                fd = _posixshmem.shm_open(
                    f"/{free_name}", os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600
                )
        except FileExistsError:
            continue
        except OSError as error:
            raise StorageError(f"no segment could be made: {error}") from error
        lock = serial = None
        try:
            serial = os.fstat(fd).st_ino
            own_names.adopt(free_name, partial(remove, free_name, serial))
            lock = liveness.hold(fd, free_name)
            if sys.platform == "linux" and not os.fstat(fd).st_nlink:
                raise _Reaped
            build(fd)
            return fd, ShmHandle(free_name, serial), lock
        except BaseException as error:
            remove(free_name, serial)
            os.close(fd)
            if lock is not None:
                os.close(lock)
            if isinstance(error, _Reaped):
                return _create_posix(name, build)  # anew
            raise
    raise _name_exists(name)


class _Reaped(Exception):  # noqa: N818  # it never leaves this file
    """A reaper saw a new segment before its lock was there."""


def _name_exists(name: str | None) -> SegmentExistsError:
    return SegmentExistsError(
        f"a segment called {name!r} exists: attach to it with SharedArray.attach({name!r}), choose "
        "another name, or remove it if it is orphaned (python -m shmcompute gc)"
    )


def _fill(fd: int, data: int, tail: bytes) -> None:
    """Reserve the memory of a new segment and describe it."""
    reserve(fd, data + len(tail))
    with mmap.mmap(fd, len(tail), offset=_granule(data)) as page:  # macOS has no pwrite here
        page[data - _granule(data) :] = _sealed(tail, fd)


def _granule(offset: int) -> int:
    return offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY


def _map(
    fd: int,
    handle: ShmHandle,
    layout: Layout,
    lock: int | None,
    remove: Callable[[], None] | None,
    *,
    close_on_error: bool = True,
    keep: bool = False,
) -> tuple[Segment, Array]:
    close_on_error = close_on_error and not keep
    try:
        base = map_file(fd, layouts.padded(layout.nbytes) or os.fstat(fd).st_size)
    except (OSError, ValueError) as error:
        if close_on_error:
            os.close(fd)
            if lock is not None:
                os.close(lock)
            if remove is not None:
                remove()
        told = limits.described(error) if isinstance(error, OSError) else error
        raise StorageError(f"segment {handle.name!r} can't be mapped: {told}") from error
    memory = np.frombuffer(base, np.uint8, count=layout.nbytes)
    array = layout.over(memory)
    finally_ = None if lock is None else partial(os.close, lock)
    segment = Segment(handle, layout, base, memory, remove, finally_=finally_)
    if not keep:
        os.close(fd)  # `base` keeps its description, and with it the lock
    return segment, array


def remove(name: str, serial: int | None) -> None:
    """Take the name away if it is still this segment's; None: it was made just now."""
    try:
        known = sys.platform == "linux" and serial is not None
        if known and (FOLDER / name).lstat().st_ino != serial:
            return
        _posixshmem.shm_unlink(f"/{name}")
        own_names.forget(name)
    except FileNotFoundError:
        pass  # somebody was faster: a gc, an administrator, a standard library's tracker
    except OSError:
        return  # it stays, and so does its lock file, by which a reaper will find it
    with suppress(OSError, StorageError):  # a folder of lock files that is not ours to touch
        liveness.forget(name)

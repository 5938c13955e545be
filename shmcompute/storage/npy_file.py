"""``storage="file"``: a memory-mapped ``.npy``, for what is larger than memory or is to last.

The file is plain NumPy: `numpy.load` reads it, and what `numpy.save` wrote can be opened. It has
no trailer and no lock, for it is meant to stay; only ``unlink()`` removes it.
"""

from __future__ import annotations

import errno
import functools
import mmap
import os
import platform
import shutil
import stat
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shmcompute.config import one_of
from shmcompute.errors import (
    SegmentExistsError,
    SegmentFormatError,
    SegmentNotFoundError,
    StorageError,
    StorageFullError,
)
from shmcompute.storage import file_space
from shmcompute.storage import npy_header as npy
from shmcompute.storage.dtype_traits import traits
from shmcompute.storage.layout import Layout, parse_header
from shmcompute.storage.mapping import map_file
from shmcompute.storage.segment import Segment, locate
from shmcompute.system import limits
from shmcompute.system.file_locks import AppendedNote, FileLocks, file_id
from shmcompute.typing import Array

MODES = ("r", "r+")
_NO_WAIT: int = getattr(os, "O_NONBLOCK", 0)  # to open a FIFO would wait for a writer


@functools.cache
def _host() -> str:
    """What tells this machine, as long as it is up, from others."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


@dataclass(frozen=True)
class FileHandle:
    """An absolute path, how it is opened, the device and inode behind it, its header's checksum.

    A file may be written anew, with another header: what was mapped before is not that array. The
    maker's has the dtype, too, where the header does not tell all of it.
    """

    name: str = field(compare=False)
    mode: str
    serial: tuple[int, int]
    header: int = 0
    dtype: np.dtype[Any] | None = field(default=None, compare=False)
    host: str = field(default_factory=_host)
    kind = "file"

    def map(self) -> tuple[Segment, Array]:
        """Map the file; shape, dtype and order come from it."""
        if self.host != _host():
            # On a file system that hosts share, each would see what it has in its own memory.
            raise StorageError(
                f"{self.name!r} is an array of another machine: a mapped file is shared by the "
                "processes of one alone. Send its content, x.array; or have each machine open the "
                "file for itself, SharedArray.open(path, mode='r')"
            )
        fd = _open(self.name, self.mode)
        try:
            if file_id(fd) != self.serial:
                raise SegmentNotFoundError(f"{self.name!r} was replaced by another file")
            layout, offset, header = _read_header(fd, self.name)
            if header != self.header:
                raise SegmentNotFoundError(
                    f"{self.name!r} was written anew, as {layout.shape} of {layout.dtype}: "
                    "SharedArray.open() it again"
                )
            if self.dtype is not None and self.dtype == layout.dtype:
                layout = replace(layout, dtype=self.dtype)
            return _map(fd, self, layout, offset, created=False)
        finally:
            os.close(fd)

    def locks(self, layout: Layout) -> FileLocks:
        return FileLocks(self._again, AppendedNote(self._end))

    def _end(self, fd: int) -> int:
        """Where the array ends, in the file as it is now: it may have been written anew."""
        os.lseek(fd, 0, os.SEEK_SET)
        layout, start, _ = _read_header(fd, self.name)
        return start + layout.nbytes

    def _again(self) -> int:
        """The file, for writing, whatever the mode: only so can it be locked."""
        try:
            fd = _open(self.name, "r+")
        except StorageError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            raise StorageError(
                f"{self.name!r} can't be locked by who may not write to it: a lock leaves a mark "
                "in the file while it is held"
            ) from error
        if file_id(fd) == self.serial:
            return fd
        os.close(fd)
        raise SegmentNotFoundError(f"{self.name!r} was replaced by another file")

    def adopt(self, segment: Segment, array: Array) -> None:
        segment.own(partial(_remove, self.name, self.serial))


def find(name: str | os.PathLike[str], mode: str = "r+") -> FileHandle:
    """The handle of a file that exists and can be opened in that mode."""
    one_of("mode", mode, MODES)
    path = os.path.abspath(os.fspath(name))
    fd = _open(path, mode)
    try:
        return FileHandle(path, mode, file_id(fd), _read_header(fd, path)[2])
    finally:
        os.close(fd)


def in_mapping_of(one: Array, view: Array) -> Array:
    """`view` by the addresses of `one`, where both look into one file that is mapped twice.

    A file that is opened once to be read and once to be written has two mappings, which share
    memory though no address tells.
    """
    place, other = locate(one), locate(view)
    if place is None or other is None or place[0] is other[0]:
        return view
    mine, its = place[0].handle, other[0].handle
    base = place[0].array()
    if not isinstance(mine, FileHandle) or not isinstance(its, FileHandle) or base is None:
        return view
    if (mine.serial, mine.header) != (its.serial, its.header):
        return view
    return np.ndarray(view.shape, view.dtype, base.base, other[1], view.strides)


def create(layout: Layout, name: str | os.PathLike[str] | None) -> tuple[Segment, Array]:
    """Make a ``.npy`` file; its disk space is reserved and reads as zero."""
    if name is None:
        raise ValueError('storage="file" needs a path: name="data.npy"')
    path = os.path.abspath(os.fspath(name))
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SegmentExistsError(
            f"{path!r} exists: SharedArray.open() maps it as it is; to make it anew, remove it"
        ) from None
    except OSError as error:
        raise StorageError(f"{path!r} can't be made: {error}") from error
    try:
        header = _fill(fd, path, layout)
        dtype = layout.dtype if traits(layout.dtype) else None
        handle = FileHandle(path, "r+", file_id(fd), zlib.crc32(header), dtype)
        return _map(fd, handle, layout, len(header), created=True)
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(fd)


def _open(path: str, mode: str) -> int:
    flags = (os.O_RDONLY if mode == "r" else os.O_RDWR) | _NO_WAIT
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SegmentNotFoundError(f"there is no file {path!r}") from None
    except PermissionError as error:
        raise StorageError(
            f'{path!r} is read-only here; open it with mode="r" ({error})'
        ) from error
    except OSError as error:
        raise StorageError(f"{path!r} can't be opened: {error}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise SegmentFormatError(f"{path!r} is no regular file, so it can't be mapped")
        return fd
    except BaseException:
        os.close(fd)
        raise


def _fill(fd: int, path: str, layout: Layout) -> bytes:
    """Write the header, which is returned, and reserve the data."""
    header = npy.write(layout.shape, layout.dtype, fortran=layout.fortran)
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(header)
        file_space.reserve(fd, len(header) + max(1, layout.nbytes))
        return header
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(f"{path!r} can't be made: {error}") from error
        limit = limits.explain(error)
        if limit is not None:
            raise StorageFullError(f"no {layout.nbytes} bytes for {path!r}: {limit}") from error
        free = shutil.disk_usage(os.path.dirname(path)).free
        raise StorageFullError(
            f"the disk is full: asked for {layout.nbytes} bytes for {path!r}, {free} free; "
            "choose a path on a larger disk"
        ) from error


def _read_header(fd: int, path: str) -> tuple[Layout, int, int]:
    """What a ``.npy`` holds, where its data starts, and its header's checksum.

    Read from what was opened, not by name.
    """
    with open(fd, "rb", closefd=False) as file:
        header = file.read(npy.START)
        try:
            length = npy.length(header)
        except ValueError as error:
            raise SegmentFormatError(f"{path!r} is no .npy file: {error}") from error
        header += file.read(length - len(header))
    layout, size = parse_header(path, header), os.fstat(fd).st_size
    if length + layout.nbytes > size:
        raise SegmentFormatError(
            f"{path!r} is truncated: {layout.shape} of {layout.dtype} needs "
            f"{length + layout.nbytes} bytes, the file has {size}"
        )
    return layout, length, zlib.crc32(header)


def _map(
    fd: int, handle: FileHandle, layout: Layout, offset: int, *, created: bool
) -> tuple[Segment, Array]:
    try:
        base = (map_file if handle.mode == "r+" else _map_to_read)(fd, offset + layout.nbytes)
    except (OSError, ValueError) as error:
        raise StorageError(f"{handle.name!r} can't be mapped: {error}") from error
    memory = np.frombuffer(base, np.uint8, count=layout.nbytes, offset=offset)
    remove = partial(_remove, handle.name, handle.serial) if created else None
    return Segment(handle, layout, base, memory, remove, lasting=True), layout.over(memory)


def _map_to_read(fd: int, length: int) -> mmap.mmap:
    return mmap.mmap(fd, length, access=mmap.ACCESS_READ)


def _remove(path: str, serial: tuple[int, int]) -> None:
    with suppress(OSError):
        entry = os.lstat(path)
        if (entry.st_dev, entry.st_ino) == serial:
            os.unlink(path)

"""Memory of `multiprocessing.Array` in files that are reserved before they are written.

`multiprocessing` takes /dev/shm if that has room, else the temp directory; it does not look whether
it may write there, and writes zeros before anybody can reserve the memory. So here the file comes
first, made in the first place that takes it, and `multiprocessing` is given its descriptor.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import heap, sharedctypes, util
from typing import Any

from shmcompute.errors import StorageFullError
from shmcompute.storage import file_space
from shmcompute.storage.mapping import map_file
from shmcompute.storage.shm_space import FOLDER
from shmcompute.system import limits, memory

LARGEST = 4 << 20  # bytes of a file for several small arrays, as in `multiprocessing`


class _Heap(heap.Heap):
    """Hands out blocks of files of ours."""

    _size: int
    _arenas: list[heap.Arena]

    def _new_arena(self, size: int) -> tuple[heap.Arena, int, int]:
        fd, length = _reserved_for(size, self._size)
        try:
            arena = heap.Arena(length, fd)
            arena.buffer = map_file(fd, length)  # its own mapping has no room for huge pages
        except BaseException:
            os.close(fd)
            raise
        util.Finalize(arena, os.close, (fd,))
        self._size = min(2 * self._size, LARGEST)
        self._arenas.append(arena)
        return arena, 0, length


# By user: who was root before may not open anew what it made then.
_heaps: defaultdict[int, _Heap] = defaultdict(_Heap)


class _Block(heap.BufferWrapper):
    """A block of this user's heap, freed with the last array in it."""

    def __init__(self, size: int) -> None:
        source = _heaps[os.geteuid()]
        block = source.malloc(size)
        self._state = (block, size)
        util.Finalize(self, source.free, args=(block,))


def allocate(size: int) -> tuple[Any, int, int]:
    """A zeroed ctypes array of so many bytes; the descriptor of its file, and its start in it.

    Raises
    ------
    StorageFullError
        If no place takes it; it says why not.
    """
    block = _Block(size)
    raw = sharedctypes.rebuild_ctype(ctypes.c_byte * size, block, None)  # type: ignore[attr-defined]
    ctypes.memset(ctypes.addressof(raw), 0, size)
    arena, start, _ = block._state[0]
    return raw, arena.fd, start


def _reserved_for(size: int, usual: int) -> tuple[int, int]:
    """A file of the heap's usual size, if that is larger and there is room; else of this size."""
    exact = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    if usual > exact:
        try:
            return _reserved(usual), usual
        except StorageFullError:
            pass
    return _reserved(exact), exact


def _reserved(size: int) -> int:
    """The descriptor of a nameless file of that size, all of it reserved."""
    refusals = []
    for name, make, free in _places():
        if free is not None and free < size:
            refusals.append(f"{name}: {free} bytes are free")
            continue
        try:
            return _filled(make(), size)
        except OSError as error:
            if error.errno == errno.EFBIG and (limit := limits.explain(error)) is not None:
                raise StorageFullError(f"{size} bytes could not be had: {limit}") from error
            refusals.append(f"{name}: {limits.described(error)}")
    raise StorageFullError(
        f"no place takes an array of {size} bytes. {'; '.join(refusals)}. Close arrays, set TMPDIR "
        'to a folder on a larger disk, or use storage="file"'
    )


def _places() -> Iterator[tuple[str, Callable[[], int], int | None]]:
    """Where memory may lie, the best first: what to call it, how to make a file, how much is free.

    Memory without a name comes last. It is bounded by what the whole machine has, so the temp
    directory, which may be a disk, is the safer place; but it needs no file system.
    """
    for folder in filter(os.path.isdir, (str(FOLDER), *_temp_folder())):
        yield folder, partial(_nameless_file, folder), _free_in(folder)
    if sys.platform == "linux":
        yield "memory without a name", _memory_file, _free_memory()


def _temp_folder() -> list[str]:
    try:
        return [tempfile.gettempdir()]
    except OSError:  # none can be written
        return []


def _free_in(folder: str) -> int | None:
    """Bytes free in a folder; None if its file system does not tell."""
    free = file_space.free_bytes(folder)
    granted = memory.reservable() if folder == str(FOLDER) else None
    return min((bound for bound in (free, granted) if bound is not None), default=None)


def _free_memory() -> int | None:
    try:
        return memory.available()
    except OSError:  # no /proc
        return None


def _nameless_file(folder: str) -> int:
    fd, name = tempfile.mkstemp(prefix=f"pym-{os.getpid()}-", dir=folder)
    os.unlink(name)
    return fd


def _memory_file() -> int:
    return os.memfd_create("pym", os.MFD_CLOEXEC)


def _filled(fd: int, size: int) -> int:
    try:
        file_space.reserve(fd, size)
        return fd
    except BaseException:
        os.close(fd)
        raise

"""The memory of a file as it is mapped: where huge pages fit, so that they are mapped as such."""

from __future__ import annotations

import mmap
import os
import sys
import weakref
from typing import Any

from shmcompute.system import huge_pages
from shmcompute.system.mappings import advise, aligned, is_tmpfs

Mapping = Any  # an `mmap.mmap` or an array of ctypes, which NumPy's types do not know as a buffer


def map_file(
    fd: int,
    length: int,
    *,
    offset: int = 0,
    flags: int = mmap.MAP_SHARED,
    keeps_fd: bool = True,
) -> Mapping:
    """So many bytes of a file, for reading and writing; unmapped with the last view.

    Every process that maps a segment comes by here, so each has huge pages mapped as such and asks
    for them: in the background the kernel makes small pages huge only for who asks.

    Parameters
    ----------
    fd, length, offset, flags
        As for `mmap.mmap`.
    keeps_fd : bool
        Whether the mapping holds a duplicate of the descriptor. Before Python 3.13 small ones do
        in any case.
    """
    memory = _huge(fd, length, offset, flags)
    if memory is not None:
        if keeps_fd:
            weakref.finalize(memory, os.close, os.dup(fd)).atexit = False
        return memory
    if sys.version_info >= (3, 13) and not keeps_fd:
        return mmap.mmap(fd, length, flags=flags, offset=offset, trackfd=False)
    return mmap.mmap(fd, length, flags=flags, offset=offset)


def _huge(fd: int, length: int, offset: int, flags: int) -> Mapping | None:
    """A mapping in which huge pages fit, if there is room for one and it is to have any."""
    huge = huge_pages.size()
    if huge is None or not huge_pages.wanted(length) or not is_tmpfs(fd):
        return None
    memory = aligned(fd, length, huge, offset, flags)
    if memory is not None:
        advise(memory, huge_pages.MADV_HUGEPAGE)
    return memory

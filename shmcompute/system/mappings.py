"""Mappings of files at aligned addresses, which `mmap.mmap` can't choose, and advice on them."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import weakref

from shmcompute.system.libc import libc

Bytes = ctypes.Array[ctypes.c_ubyte]
_FIXED = 0x10  # MAP_FIXED of Linux, which `mmap` does not name
_NOTHING = 0  # PROT_NONE
_FAILED = ctypes.c_void_p(-1).value
_TMPFS = 0x01021994  # the first word of `struct statfs`


def aligned(
    fd: int, length: int, to: int, offset: int = 0, flags: int = mmap.MAP_SHARED
) -> Bytes | None:
    """A file's bytes for reading and writing, where address and `offset` are alike modulo `to`.

    A huge page of a file is mapped as such only where addresses are aligned as it is. The mapping
    goes with the last object that looks into it. It holds the file's description, and so its
    locks, without a descriptor.

    Parameters
    ----------
    fd, length, offset, flags
        As for `mmap.mmap`; the file has so many bytes.
    to : int
        The size of a huge page.

    Returns
    -------
    array of bytes, or None
        None if the kernel does not map it so.

    Raises
    ------
    ValueError
        If the file is shorter: who looks behind its end is killed.
    """
    if offset + length > os.fstat(fd).st_size:
        raise ValueError("mmap length is greater than file size")
    memory = _reserved(length, to, offset)
    if memory is None:
        return None
    address, protection = ctypes.addressof(memory), mmap.PROT_READ | mmap.PROT_WRITE
    result = libc().mmap(address, length, protection, flags | _FIXED, fd, offset)
    return memory if result == address else None


def advise(memory: Bytes, advice: int) -> bool:
    """Whether the kernel took the advice, one of its ``MADV_*``, on all of a mapping."""
    return bool(libc().madvise(ctypes.addressof(memory), len(memory), advice) == 0)


def is_tmpfs(fd: int) -> bool:
    """Whether a file lies in memory, be it a tmpfs that is mounted or a memfd's."""
    status = (ctypes.c_long * 64)()
    return libc().fstatfs(fd, status) == 0 and status[0] == _TMPFS


def _reserved(length: int, to: int, offset: int) -> Bytes | None:
    """Addresses that nobody else is given, with nothing behind them; None if there are too few."""
    room = _pages(length) + to
    start = libc().mmap(None, room, _NOTHING, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if start in (None, _FAILED):
        return None
    address = start + (offset - start) % to
    memory = _type(length).from_address(address)
    # Not at exit: views may be looked into until the very end.
    weakref.finalize(memory, libc().munmap, address, length).atexit = False
    end = address + _pages(length)
    for first, last in ((start, address), (end, start + room)):
        if last > first:
            libc().munmap(first, last - first)
    return memory


def _pages(length: int) -> int:
    return -(-length // mmap.PAGESIZE) * mmap.PAGESIZE


@functools.lru_cache(maxsize=32)
def _type(length: int) -> type[Bytes]:
    return ctypes.c_ubyte * length

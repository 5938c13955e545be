"""`Block`: the memory of a control block, as Python reads and writes it."""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from shmcompute.arguments import Number, Values
from shmcompute.backends.doorbell import control
from shmcompute.trampoline import FORMATS

if sys.platform == "linux":
    import fcntl


class Block:
    """A control block for so many workers and their caller.

    Parameters
    ----------
    workers : int
        How many slots it has, beside the caller's.
    fd : int, optional
        The memory, where another process has made it, or -1 for memory of this process alone. What
        is made here has no name: it goes with the last process that has it, however that ends.
    """

    def __init__(self, workers: int, fd: int | None = None) -> None:
        size = control.bytes_for(workers)
        self.workers = workers
        self.fd = _made(size) if fd is None else fd
        # Private to threads: what a forked child writes is nothing to them.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS if fd == -1 else mmap.MAP_SHARED
        try:
            self._memory = mmap.mmap(self.fd, size, flags=flags)
        except BaseException:
            self.close()
            raise
        self._words = memoryview(self._memory).cast("q")
        array = np.frombuffer(self._memory, np.int64)
        self.address: int = array.__array_interface__["data"][0]

    def slot(self, number: int) -> int:
        """The address of a worker's slot; the last is the caller's."""
        return self.address + control.SLOTS_AT + control.SLOT * number

    def read(self, address: int) -> int:
        """What stands in a word."""
        return self._words[(address - self.address) >> 3]

    def write(self, address: int, value: int) -> None:
        """Set a word."""
        self._words[(address - self.address) >> 3] = value

    def tell(self, values: Values) -> None:
        """Put the numbers of the next run where workers read them."""
        form = _layout(tuple(map(type, values)))
        parts: list[Number] = []
        for value in values:
            parts += (value.real, value.imag) if type(value) is complex else (value,)
        form.pack_into(self._memory, control.VALUES_AT, *parts)

    def told(self, kinds: Sequence[type[Number]]) -> Values:
        """The numbers of this run."""
        parts = iter(_layout(tuple(kinds)).unpack_from(self._memory, control.VALUES_AT))
        return tuple(
            complex(next(parts), next(parts)) if kind is complex else next(parts) for kind in kinds
        )

    def close(self) -> None:
        """Give back the descriptor; the memory goes with this object."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _made(size: int) -> int:
    """Memory of a fixed size: nobody who has it can take it from under the others."""
    fd = os.memfd_create("shmcompute", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


@lru_cache(maxsize=256)
def _layout(kinds: tuple[type[Number], ...]) -> struct.Struct:
    return struct.Struct("<" + "".join(FORMATS[kind] for kind in kinds))

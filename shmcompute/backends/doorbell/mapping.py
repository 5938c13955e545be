"""`ControlMapping`: the memory of a control block, as Python reads and writes it."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from operator import setitem
from typing import Any

import numpy as np

from shmcompute import events
from shmcompute.backends.doorbell import control_block
from shmcompute.chunking import COMPLEX, FORMATS, Number, Values
from shmcompute.errors import StorageError
from shmcompute.system import limits
from shmcompute.system.atomic_words import has_futex, waits_by_futex
from shmcompute.typing import Array


class ControlMapping:
    """A control block for so many workers and their caller, mapped in this process.

    Parameters
    ----------
    workers : int
        How many slots it has, beside the caller's.
    fd : int, optional
        The memory, where another process has made it, or -1 for memory of this process alone. What
        is made here has no name: it goes with the last process that has it, however that ends.

    Attributes
    ----------
    words : memoryview of int64
        All of it, for who reads and writes words often.
    frame : bytes
        What was written last: another call of the same arrays need not write it again.
    """

    def __init__(self, workers: int, fd: int | None = None) -> None:
        size = control_block.bytes_for(workers)
        self.workers = workers
        self.fd = -1 if fd is None else fd
        # Private to threads: what a forked child writes is nothing to them.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS if fd == -1 else mmap.MAP_SHARED
        try:
            if fd is None:
                self.fd = _create(size)
            self._memory = mmap.mmap(self.fd, size, flags=flags)
        except OSError as error:
            self.close()
            raise StorageError(
                f"no memory of {size} bytes was to be had for a pool's control block: "
                f"{limits.described(error)}"
            ) from error
        self.frame = b""
        self.words = memoryview(self._memory).cast("q")
        array = np.frombuffer(self._memory, np.int64)
        self.address: int = array.__array_interface__["data"][0]
        if fd in (None, -1):  # workers do as their caller does
            self.write(self.address + control_block.POLLS, not waits_by_futex())
            if not has_futex():
                events.tell("wait_fallback")
            for number in range(workers + 1):
                ring = control_block.ring_at(workers, number)
                self.write(self.slot(number) + control_block.RING, ring)

    def slot(self, number: int) -> int:
        """The address of a worker's slot; the last is the caller's."""
        return self.address + control_block.SLOTS_AT + control_block.SLOT * number

    def read(self, address: int) -> int:
        """What stands in a word."""
        return self.words[(address - self.address) >> 3]

    def write(self, address: int, value: int) -> None:
        """Set a word."""
        self.words[(address - self.address) >> 3] = value

    def writer(self, address: int) -> Callable[[int], None]:
        """What sets that word."""
        return partial(setitem, self.words, (address - self.address) >> 3)

    def write_frame(self, frame: bytes) -> None:
        """Say where the arrays of the next run are."""
        self._memory[control_block.FRAME_AT : control_block.FRAME_AT + len(frame)] = frame
        self.frame = frame

    def read_frame(self, size: int) -> bytes:
        """What was said of this run, so many bytes."""
        return self._memory[control_block.FRAME_AT : control_block.FRAME_AT + size]

    def write_values(self, values: Values) -> None:
        """Put the numbers of the next run where workers read them."""
        kinds = tuple(map(type, values))
        parts: Sequence[Number] = values
        if not COMPLEX.isdisjoint(kinds):
            parts = [part for value in values for part in _parts(value)]
        _layout(kinds).pack_into(self._memory, control_block.VALUES_AT, *parts)

    def read_values(self, types: Sequence[type[Number]]) -> Values:
        """The numbers of this run."""
        parts = iter(_layout(tuple(types)).unpack_from(self._memory, control_block.VALUES_AT))
        return tuple(_number(kind, parts) for kind in types)

    def take_records(self, number: int) -> Array:
        """What was recorded of a slot since the last time, and what is being recorded.

        A row each: the run, the chunk, when it began and when it ended. Of the last, which may be
        in the making, or none at all, only an end of 0 says that it has begun.
        """
        slot = self.slot(number)
        read, recorded = (
            self.read(slot + word) for word in (control_block.READ, control_block.RECORDED)
        )
        words = np.frombuffer(self._memory, np.int64)[self.read(slot + control_block.RING) >> 3 :]
        ring = words[: 4 * control_block.RECORDS].reshape(-1, 4)
        taken = ring[np.arange(read, recorded + 1) % control_block.RECORDS]
        self.write(slot + control_block.READ, recorded)
        return taken

    def close(self) -> None:
        """Give back the descriptor; the memory goes with this object."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _create(size: int) -> int:
    """Memory of a fixed size: nobody who has it can take it from under the others."""
    try:
        fd = os.memfd_create("shmcompute", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (AttributeError, OSError):  # not Linux, or a sandbox forbids it
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(fd)
        raise
    return fd


@lru_cache(maxsize=256)
def _layout(types: tuple[type[Number], ...]) -> struct.Struct:
    return struct.Struct("<" + "".join(FORMATS[kind] for kind in types))


def _parts(value: Number) -> tuple[Number, ...]:
    return (value.real, value.imag) if type(value) in COMPLEX else (value,)


def _number(kind: type[Any], parts: Iterator[Any]) -> Number:
    number: Number = kind(complex(next(parts), next(parts)) if kind in COMPLEX else next(parts))
    return number

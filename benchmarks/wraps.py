"""Ways to bring an array into memory that other processes can map, or just to copy it.

Each takes the source and returns the copy, and what lets go of it once nobody looks at it.
"""

import mmap
import os
import tempfile
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple

import numpy as np

import shmcompute as sc


def nothing():
    pass


def touched(source):
    """Into memory that is mapped and has been written: what any way costs at least."""
    target = _by_hand(source)[0]

    def make(source):
        np.copyto(target, source)
        return target, nothing

    return make


def _copy(source):
    return source.copy(), nothing


def _by_hand(source):
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryFile(dir=place) as file:
        os.posix_fallocate(file.fileno(), 0, source.nbytes)
        target = np.frombuffer(mmap.mmap(file.fileno(), source.nbytes), source.dtype)
    np.copyto(target, source)
    return target, nothing


def _shared_memory(source):
    memory = SharedMemory(create=True, size=source.nbytes)
    target = np.ndarray(source.shape, source.dtype, memory.buf)
    np.copyto(target, source)

    def let_go():
        memory.close()
        memory.unlink()

    return target, let_go


def _raw_array(source):
    target = np.frombuffer(RawArray("d", source.size))
    np.copyto(target, source)
    return target, nothing


def _shared_array(source):
    array = sc.SharedArray(source)
    return array.array, array.close


class Wrap(NamedTuple):
    """One way: made once for a source, then called again and again."""

    start: Callable[[np.ndarray], Callable[[np.ndarray], Any]]
    before: Callable[[], None] = nothing  # each call, once the last copy is gone


WRAPS = {
    "np.copyto, touched memory": Wrap(touched),
    "np.copy": Wrap(lambda source: _copy),
    "fallocate and copy by hand": Wrap(lambda source: _by_hand),
    "SharedMemory and copy": Wrap(lambda source: _shared_memory),
    "RawArray and copy": Wrap(lambda source: _raw_array),
    "shmcompute, after a close": Wrap(lambda source: _shared_array),
    # What was kept of closed arrays is given back.
    "shmcompute, cold": Wrap(lambda source: _shared_array, sc.shutdown),
}


class Wrapped:
    """The copy that the last call made; the next call begins when it is gone."""

    def __init__(self, wrap, source):
        self._make, self._before, self._source = wrap.start(source), wrap.before, source
        self.array, self._let_go = None, nothing

    def prepare(self):
        self.array = None
        self._let_go()
        self._let_go = nothing
        self._before()

    def __call__(self):
        self.array, self._let_go = self._make(self._source)

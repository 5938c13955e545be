"""`run_each`: chunks one after another, with an eye on the arrays that all of them see.

What a kernel brings along (`kernels.captured`) is no argument, so it is no chunk's own and gets no
guarded copy. Under ``debug=True`` its chunks run one at a time, and after each is seen which bytes
it has changed, in these arrays and around them.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterable

import numpy as np
from numpy.lib.array_utils import byte_bounds

from shmcompute.chunking import Chunk
from shmcompute.errors import OutOfBoundsError
from shmcompute.kernels import Captured
from shmcompute.plans.plan import Plan
from shmcompute.storage import locate
from shmcompute.system.tracebacks import level_of_user
from shmcompute.typing import Array

ZONE = 1 << 16  # bytes on each side of an array that are watched, as far as they are its segment's
Bounds = tuple[int, int]  # addresses


def run_each(run: Callable[[Plan], None], plan: Plan) -> bool:
    """Run a plan chunk by chunk; whether any of what it captured was changed.

    Raises
    ------
    OutOfBoundsError
        If a chunk wrote beside it. As after any error, it is then what it was before that chunk.
    """
    own = [byte_bounds(array) for _, array in plan.captured]
    written = [byte_bounds(part) for part in plan.targets() if part.size]
    watched = [_Watched(one, [*own, *written]) for one in plan.captured]
    for number, chunk in enumerate(plan.chunks):
        try:
            run(plan.only([number]))
            for one in watched:
                one.look(plan.name, chunk)
        except BaseException:
            for one in watched:
                one.restore()
            raise
    for one in watched:
        if one.contended.any() and not plan.careful:
            warnings.warn(one.warning(plan.name), RuntimeWarning, stacklevel=level_of_user())
    return any(one.touched.any() for one in watched)


class _Watched:
    """The memory of one array and what is around it, as the latest chunk left it."""

    def __init__(self, captured: Captured, allowed: Iterable[Bounds]) -> None:
        self._where, self._array = captured
        self._low, high = _surroundings(self._array)
        self._memory = _bytes_at(self._low, high)
        self._before = self._memory.copy()
        self._allowed = np.zeros(len(self._memory), np.bool_)
        for bounds in allowed:
            self._allowed[self._slice(bounds)] = True
        start, stop = byte_bounds(self._array)
        self._own = slice(start - self._low, stop - self._low)
        self.touched = np.zeros(stop - start, np.bool_)
        self.contended = self.touched.copy()  # by more than one chunk

    def look(self, kernel: str, chunk: Chunk) -> None:
        """Note what a chunk has changed; raise if that is beside the array."""
        changed = self._memory != self._before
        if (changed & ~self._allowed).any():
            raise OutOfBoundsError(
                f"kernel {kernel} wrote beside {self._described()} in chunk [{chunk[0]}, "
                f"{chunk[1]}); what it wrote there was put back"
            )
        self.contended |= self.touched & changed[self._own]
        self.touched |= changed[self._own]
        self._before[...] = self._memory

    def restore(self) -> None:
        """Put back what was there before the latest chunk, but for what other arrays own."""
        changed = self._memory != self._before
        changed[: self._own.start] &= ~self._allowed[: self._own.start]
        changed[self._own.stop :] &= ~self._allowed[self._own.stop :]
        self._memory[changed] = self._before[changed]

    def warning(self, kernel: str) -> str:
        """Words for what several chunks have changed."""
        return (
            f"kernel {kernel}: several chunks change the same elements of {self._described()}. "
            "Chunks that run at the same time would lose each other's updates: sc.atomic_add and "
            "its like lose none, and arr.lock() lets one in at a time"
        )

    def _described(self) -> str:
        return f"{self._where} (shape {self._array.shape}, {self._array.dtype})"

    def _slice(self, bounds: Bounds) -> slice:
        start, stop = (min(max(0, edge - self._low), len(self._memory)) for edge in bounds)
        return slice(start, stop)


def _surroundings(array: Array) -> Bounds:
    """The addresses of what may be looked at around an array."""
    low, high = byte_bounds(array)
    place = locate(array)
    if place is None:
        outermost = array
        while isinstance(outermost.base, np.ndarray):
            outermost = outermost.base
        first, last = byte_bounds(outermost)
    else:
        segment = place[0]
        first, last = segment.address, segment.address + segment.extent
    return max(min(first, low), low - ZONE), min(max(last, high), high + ZONE)


def _bytes_at(low: int, high: int) -> Array:
    buffer = (ctypes.c_uint8 * (high - low)).from_address(low)
    return np.frombuffer(memoryview(buffer), np.uint8)

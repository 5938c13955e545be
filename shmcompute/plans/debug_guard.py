"""`Guard`: what the kernels of one chunk are called with, copied to where they can do no harm.

Under ``debug=True`` kernels work on copies. A copy has its original's shape, strides and alignment,
so a compiled kernel takes it for the same; before and behind it are zones that belong to nobody,
and so does what the strides step over. All of it is filled with one byte. What a kernel changes
there, or in an argument that it is to read, is found when it returns. Only what it may write is
written back, when all went well.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from shmcompute.chunking import Arguments, Chunk, Constant, overlap
from shmcompute.errors import OutOfBoundsError, ReadOnlyError, ShmComputeError
from shmcompute.kernels import Kernel, UfuncKernel
from shmcompute.typing import Array

FILL = 0xA5  # a byte that few programs write
LEAST, MOST = 1 << 12, 1 << 20  # bytes of a zone; in between: as many as it guards
LINE = 64  # addresses of copy and original agree in their last digits, and so in alignment


class Guard:
    """Copies of the arrays among the arguments of one chunk, for each link of a plan.

    Parameters
    ----------
    calls : sequence of sequence
        What each kernel would be called with. Arrays that may not be written are read-only. Those
        of Python objects are not copied.
    """

    def __init__(self, calls: Sequence[Sequence[Any]]) -> None:
        self._calls = calls
        held = [
            _Held(link, position, arg)
            for link, args in enumerate(calls)
            for position, arg in enumerate(args)
            if isinstance(arg, np.ndarray) and arg.itemsize and not arg.dtype.hasobject
        ]
        self._shadows = [_Shadow(group) for group in _sharing(held)]

    def arguments(self, link: int) -> Arguments:
        """What the kernel of this link is called with, instead."""
        args = list(self._calls[link])
        for shadow in self._shadows:
            for held in shadow.of(link):
                args[held.position] = shadow.copy(held)
        return Arguments(tuple(map(Constant, args)), length=0)

    def check(self, link: int, kernel: Kernel, chunk: Chunk) -> None:
        """Raise if the kernel of this link wrote what it may not.

        Raises
        ------
        OutOfBoundsError, ReadOnlyError
        """
        for shadow in self._shadows:
            stray = shadow.strays(link)
            if stray.size:
                raise _found(shadow, stray, link, kernel, chunk)

    def write_back(self) -> None:
        """Have the originals hold what the kernels wrote."""
        for shadow in self._shadows:
            shadow.write_back()


@dataclass(frozen=True, eq=False)
class _Held:
    """An array, and of which link it is which argument."""

    link: int
    position: int
    array: Array

    @property
    def writes(self) -> bool:
        return self.array.flags.writeable


def _sharing(held: Iterable[_Held]) -> list[list[_Held]]:
    """Those that share memory together: what one of them is written, the others are to see."""
    groups: list[list[_Held]] = []
    for one in held:
        mine = [group for group in groups if any(overlap(one.array, it.array) for it in group)]
        groups = [group for group in groups if group not in mine]
        groups.append([*chain.from_iterable(mine), one])
    return groups


class _Shadow:
    """A copy of arrays that share memory, between two zones."""

    def __init__(self, group: Sequence[_Held]) -> None:
        self._group = group
        bounds = [_bounds(held.array) for held in group]
        low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
        zone = min(max(LEAST, high - low), MOST)
        room = np.full(zone + high - low + zone + LINE, FILL, np.uint8)
        skipped = (low - zone - room.__array_interface__["data"][0]) % LINE
        self._memory = room[skipped : skipped + zone + high - low + zone]
        self._origin = low - zone  # where the first byte of the memory would be in the original
        for held in group:
            self._raw(held, self._memory)[...] = _raw(held.array)
        self._before = self._memory.copy()

    def of(self, link: int) -> list[_Held]:
        """Those that are arguments of this link."""
        return [held for held in self._group if held.link == link]

    def owner(self, link: int, stray: Array) -> _Held:
        """Whom to name: an argument of this link if there is one, rather one that it may write."""

        def distance(held: _Held) -> tuple[bool, bool, bool]:
            return held.link != link, not held.writes, not self.hits(held, stray)

        return min(self._group, key=distance)

    def copy(self, held: _Held) -> Array:
        """What the kernel gets."""
        copy = self._over(self._memory, held, held.array.dtype)
        copy.flags.writeable = held.writes
        return copy

    def strays(self, link: int) -> Array:
        """Where bytes were changed since the last look that this link may not write."""
        changed = self._memory != self._before
        for held in self.of(link):
            if held.writes:
                self._raw(held, changed)[...] = np.zeros((), _bytes(held.array))
        self._before[...] = self._memory
        return np.flatnonzero(changed)

    def hits(self, held: _Held, places: Array) -> bool:
        """Whether any of these places is in its elements."""
        inside = np.zeros(len(self._memory), np.bool_)
        ones = np.ones(held.array.itemsize, np.bool_)
        self._raw(held, inside)[...] = ones.view(_bytes(held.array))
        return bool(inside[places].any())

    def extent(self, held: _Held) -> tuple[int, int]:
        """Where its first byte is, and the first behind its last."""
        low, high = _bounds(held.array)
        return low - self._origin, high - self._origin

    def write_back(self) -> None:
        for held in self._group:
            if held.writes:
                _raw(held.array)[...] = self._raw(held, self._memory)

    def _raw(self, held: _Held, memory: Array) -> Array:
        return self._over(memory, held, _bytes(held.array))

    def _over(self, memory: Array, held: _Held, dtype: np.dtype[Any]) -> Array:
        """What stands in memory where the original would."""
        array = held.array
        at = array.__array_interface__["data"][0] - self._origin
        strides = array.strides if array.size else None  # of no elements they may lead anywhere
        return np.ndarray(array.shape, dtype, memory, at, strides)


def _bounds(array: Array) -> tuple[int, int]:
    """The addresses of its first byte and of the first behind its last."""
    if array.size:
        return byte_bounds(array)
    address: int = array.__array_interface__["data"][0]
    return address, address


def _bytes(array: Array) -> np.dtype[Any]:
    """The dtype of elements that are copied bit by bit, padding too."""
    return np.dtype(f"V{array.itemsize}")


def _raw(array: Array) -> Array:
    return array.view(_bytes(array))


def _found(
    shadow: _Shadow, stray: Array, link: int, kernel: Kernel, chunk: Chunk
) -> ShmComputeError:
    """The error of a kernel that changed these places."""
    held = shadow.owner(link, stray)
    kind: type[ShmComputeError] = OutOfBoundsError
    what = f"wrote {_where(*shadow.extent(held), stray, held.array.itemsize)} of"
    remedy = "a kernel may write its part only, whose indices start at 0 in each chunk"
    if not held.writes and shadow.hits(held, stray):
        kind, what = ReadOnlyError, "wrote"
        remedy = "that is read-only (sc.read, sc.whole); pass it as it is, to be split and written"
    start, stop = chunk
    return kind(
        f"kernel {kernel.name} {what} {_named(held, link, kernel)} in chunk [{start}, {stop}); "
        f"{remedy}. It had a copy: nothing else was touched, and the chunk reads as before"
    )


def _where(low: int, high: int, stray: Array, itemsize: int) -> str:
    """Which side of ``[low, high)``, and how far, in whole elements."""
    before = -(-(low - int(stray[0])) // itemsize)
    past = -(-(int(stray[-1]) + 1 - high) // itemsize)
    told = [
        f"up to {count * itemsize} bytes ({count} element{'s'[: count - 1]}) {side}"
        for count, side in ((before, "before the start"), (past, "past the end"))
        if count > 0
    ]
    return " and ".join(told or ["between the elements"])


def _named(held: _Held, link: int, kernel: Kernel) -> str:
    """An argument in words: which, its name if the kernel has one for it, and what it is."""
    array = held.array
    told = f"shape {array.shape}, {array.dtype}"
    if held.link != link:
        return f"argument {held.position} of link {held.link} ({told})"
    with suppress(TypeError, ValueError, IndexError):  # a C function may not tell
        if not isinstance(kernel, UfuncKernel):  # which are called in an order of their own
            name = [*inspect.signature(kernel.function).parameters][held.position]
            return f"argument {held.position} ({name}: {told})"
    return f"argument {held.position} ({told})"

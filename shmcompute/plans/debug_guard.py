"""`Guard`: copies of a chunk's arguments, on which wrong kernels can do no harm.

Under ``debug=True`` kernels work on copies. A copy has its original's shape, strides and alignment,
so a compiled kernel takes it for the same. Before and behind it are zones that belong to nobody,
as do the bytes that its strides step over; all of them are filled with one byte. If a kernel
changes one of these, or an argument that it may only read, `check` notices when it returns. Only
what it may write is written back, and only when all kernels have behaved.
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
from shmcompute.system.addresses import address
from shmcompute.typing import Array

FILL = 0xA5  # a byte that few programs write
LEAST, MOST = 1 << 12, 1 << 20  # bytes of a zone; in between: as many as it guards
LINE = 64  # a copy's address modulo this is its original's, so they are aligned alike


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
        operands = [
            _Operand(link, position, arg)
            for link, args in enumerate(calls)
            for position, arg in enumerate(args)
            if isinstance(arg, np.ndarray) and arg.itemsize and not arg.dtype.hasobject
        ]
        self._shadows = [_Shadow(group) for group in _sharing(operands)]

    def arguments(self, link: int) -> Arguments:
        """What the kernel of this link is called with, instead."""
        args = list(self._calls[link])
        for shadow in self._shadows:
            for operand in shadow.of(link):
                args[operand.position] = shadow.copy(operand)
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
                raise _error(shadow, stray, link, kernel, chunk)

    def write_back(self) -> None:
        """Copy what the kernels wrote to the originals."""
        for shadow in self._shadows:
            shadow.write_back()


@dataclass(frozen=True, eq=False)
class _Operand:
    """An array that is an argument of a link."""

    link: int
    position: int
    array: Array

    @property
    def writes(self) -> bool:
        return self.array.flags.writeable

    @property
    def raw(self) -> np.dtype[Any]:
        """A dtype of the same size, whose elements are copied bit by bit, padding too."""
        return np.dtype(f"V{self.array.itemsize}")

    @property
    def bounds(self) -> tuple[int, int]:
        """The addresses of its first byte and of the first behind its last."""
        start = address(self.array)
        return byte_bounds(self.array) if self.array.size else (start, start)


def _sharing(operands: Iterable[_Operand]) -> list[list[_Operand]]:
    """Groups that share memory: what is written through one operand, the others must see."""
    groups: list[list[_Operand]] = []
    for operand in operands:
        mine = [group for group in groups if any(overlap(operand.array, it.array) for it in group)]
        groups = [group for group in groups if group not in mine]
        groups.append([*chain.from_iterable(mine), operand])
    return groups


class _Shadow:
    """A copy of arrays that share memory, between two zones."""

    def __init__(self, group: Sequence[_Operand]) -> None:
        self._group = group
        lows, highs = zip(*(operand.bounds for operand in group), strict=True)
        low, high = min(lows), max(highs)
        zone = min(max(LEAST, high - low), MOST)
        self.origin = low - zone  # the address in the original that the memory starts at
        size = zone + high - low + zone
        memory = np.full(size + LINE, FILL, np.uint8)
        skipped = (self.origin - address(memory)) % LINE
        self._memory = memory[skipped : skipped + size]
        for operand in group:
            self._elements(operand, self._memory)[...] = operand.array.view(operand.raw)
        self._before = self._memory.copy()

    def of(self, link: int) -> list[_Operand]:
        """The arguments of this link."""
        return [operand for operand in self._group if operand.link == link]

    def copy(self, operand: _Operand) -> Array:
        """What the kernel gets."""
        copy = self._view(operand, self._memory, operand.array.dtype).view(type(operand.array))
        copy.flags.writeable = operand.writes
        return copy

    def strays(self, link: int) -> Array:
        """Offsets of bytes that changed since the last call and that this link may not write."""
        changed = self._memory != self._before
        for operand in self.of(link):
            if operand.writes:
                self._elements(operand, changed)[...] = np.zeros((), operand.raw)
        self._before[...] = self._memory
        return np.flatnonzero(changed)

    def owner(self, link: int, stray: Array) -> _Operand:
        """Which to blame: if possible an argument of this link, and one that it may write."""

        def distance(operand: _Operand) -> tuple[bool, bool, bool]:
            return operand.link != link, not operand.writes, not self.hits(operand, stray)

        return min(self._group, key=distance)

    def hits(self, operand: _Operand, offsets: Array) -> bool:
        """Whether any of these offsets is in the operand's elements."""
        inside = np.zeros(len(self._memory), np.bool_)
        ones = np.ones(operand.array.itemsize, np.bool_)
        self._elements(operand, inside)[...] = ones.view(operand.raw)
        return bool(inside[offsets].any())

    def write_back(self) -> None:
        for operand in self._group:
            if operand.writes:
                operand.array.view(operand.raw)[...] = self._elements(operand, self._memory)

    def _elements(self, operand: _Operand, memory: Array) -> Array:
        return self._view(operand, memory, operand.raw)

    def _view(self, operand: _Operand, memory: Array, dtype: np.dtype[Any]) -> Array:
        """The operand's elements, in memory that stands for the shadow's."""
        array = operand.array
        strides = array.strides if array.size else None  # without elements they may lead anywhere
        return np.ndarray(array.shape, dtype, memory, address(array) - self.origin, strides)


def _error(
    shadow: _Shadow, stray: Array, link: int, kernel: Kernel, chunk: Chunk
) -> ShmComputeError:
    """The error of a kernel that changed the bytes at these offsets."""
    operand = shadow.owner(link, stray)
    kind: type[ShmComputeError] = OutOfBoundsError
    what = f"wrote {_where(operand, stray + shadow.origin)} of"
    remedy = "a kernel may write its part only, whose indices start at 0 in each chunk"
    if not operand.writes and shadow.hits(operand, stray):
        kind, what = ReadOnlyError, "wrote"
        remedy = "that is read-only (sc.read, sc.whole); pass it as it is, to be split and written"
    start, stop = chunk
    return kind(
        f"kernel {kernel.name} {what} {_describe(operand, link, kernel)} in chunk [{start}, "
        f"{stop}); {remedy}. It had a copy: nothing else was touched, and the chunk reads as before"
    )


def _where(operand: _Operand, stray: Array) -> str:
    """On which side of the operand these addresses are, and how far, in whole elements."""
    (low, high), itemsize = operand.bounds, operand.array.itemsize
    before = -(-(low - int(stray[0])) // itemsize)
    past = -(-(int(stray[-1]) + 1 - high) // itemsize)
    sides = [
        f"up to {count * itemsize} bytes ({count} element{'s'[: count - 1]}) {side}"
        for count, side in ((before, "before the start"), (past, "past the end"))
        if count > 0
    ]
    return " and ".join(sides or ["between the elements"])


def _describe(operand: _Operand, link: int, kernel: Kernel) -> str:
    """An argument in words: which, its name if the kernel has one for it, and what it is."""
    which, name = f"argument {operand.position}", ""
    if operand.link != link:
        which += f" of link {operand.link}"
    elif not isinstance(kernel, UfuncKernel):  # these are called in an order of their own
        with suppress(TypeError, ValueError, IndexError):  # a C function without a signature
            name = f"{[*inspect.signature(kernel.function).parameters][operand.position]}: "
    return f"{which} ({name}shape {operand.array.shape}, {operand.array.dtype})"

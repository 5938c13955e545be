"""What machine code calls for an argument that is continued beyond its ends; see `chunking.halo`.

It does what `PaddedPart.at` does, on words of memory: for a chunk within the array it describes a
view, for one at an end it makes a padded copy in memory of the worker's own. One function serves
arrays of any type, so it is compiled once on a machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shmcompute.chunking import Chunk, PaddedPart
from shmcompute.kernels.trampoline import PAD_TYPES, address_of
from shmcompute.system.addresses import address
from shmcompute.system.atomic_words import compile_all, jitted
from shmcompute.system.compiling import call_compiler
from shmcompute.typing import Array

_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic  # else its type is without arguments

WORD, LINE = 8, 128  # bytes
# The words of such an argument:
ROWS, ROW = 0, 1  # where the workers' memory is, and bytes of each
BEFORE, AFTER = 2, 3  # how many elements more a chunk sees
LEFT, RIGHT = 4, 5  # where the indices are of what stands before the array, and after it
FILL = 6  # where the element is that stands there instead, where these are negative
LOOPS = 7  # where there are, for each axis but the split one, its length and strides; see `_loops`
AXIS, NDIM = 8, 9
STRIDES = 10  # where a copy's strides are
ITEMSIZE = 11


@_intrinsic
def words_at(_: Any, place: Any) -> tuple[Any, Any]:
    """The words at an address, to be read and written by their index."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], ir.IntType(64).as_pointer())

    return types.CPointer(types.int64)(types.int64), generate


@_intrinsic
def copy_bytes(_: Any, target: Any, source: Any, size: Any) -> tuple[Any, Any]:
    """Copy so many bytes from one address to another."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        target, source = (builder.inttoptr(arg, cgutils.voidptr_t) for arg in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@jitted
def pad(data: int, place: int, geometry: int, start: int, stop: int, worker: int) -> Any:
    """The address of words that tell what a chunk sees: address, shape and strides.

    `place` is where the argument's words are, and `geometry` where the array's shape and strides.
    """
    words, sizes = words_at(place), words_at(geometry)
    ndim, axis, size = words[NDIM], words[AXIS], words[ITEMSIZE]
    row = words[ROWS] + worker * words[ROW]
    seen, strides = words_at(row), 1 + ndim
    first, last, length = start - words[BEFORE], stop + words[AFTER], sizes[axis]
    step = sizes[ndim + axis]
    for number in range(2 * ndim):
        seen[1 + number] = sizes[number]
    seen[1 + axis] = last - first
    seen[0] = data + first * step
    if first >= 0 and last <= length:
        return row
    seen[0] = row + WORD * (1 + 2 * ndim)
    for number in range(ndim):
        seen[strides + number] = words_at(words[STRIDES])[number]
    stride = seen[strides + axis]
    low, high = max(0, first), min(last, length)
    for index in range(first, low):
        source = words_at(words[LEFT])[index + words[BEFORE]]
        copy_beyond(words, seen[0] + (index - first) * stride, data, step, source)
    for index in range(high, last):
        source = words_at(words[RIGHT])[index - length]
        copy_beyond(words, seen[0] + (index - first) * stride, data, step, source)
    target, source = seen[0] + (low - first) * stride, data + low * step
    if step == size and stride == size:
        copy_across(words, target, source, (high - low) * size, 1)
    else:
        for index in range(high - low):
            copy_across(words, target + index * stride, source + index * step, size, 1)
    return row


@jitted
def copy_beyond(words: Any, target: int, data: int, step: int, source: int) -> None:
    """Put there what has this index along the axis; a negative one is that of the constant."""
    if source < 0:
        copy_across(words, target, words[FILL], words[ITEMSIZE], 0)
    else:
        copy_across(words, target, data + source * step, words[ITEMSIZE], 1)


@jitted
def copy_across(words: Any, target: int, source: int, size: int, moves: int) -> None:
    """Copy `size` bytes for each index of the other axes; always the same, if `moves` is 0."""
    loops, axes = words_at(words[LOOPS]), max(1, words[NDIM] - 1)
    length, step, stride = loops[0], loops[1] * moves, loops[2]
    outer = 1
    for axis in range(1, axes):
        outer *= loops[3 * axis]
    for number in range(outer):
        rest, from_, to = number, source, target
        for axis in range(1, axes):
            index = rest % loops[3 * axis]
            rest //= loops[3 * axis]
            from_ += index * loops[3 * axis + 1] * moves
            to += index * loops[3 * axis + 2]
        if step == size and stride == size:
            copy_bytes(to, from_, length * size)
        else:
            for index in range(length):
                copy_bytes(to + index * stride, from_ + index * step, size)


def prepare() -> None:
    """Have it compiled; else a run would wait for it."""
    if not pad.overloads:
        call_compiler(lambda: compile_all([pad]))


def address_of_pad() -> int | None:
    """Where the machine code of `pad` is."""
    prepare()
    version = address_of(pad, PAD_TYPES)
    return None if isinstance(version, str) else version[1]


def padding_words(part: PaddedPart, chunks: Sequence[Chunk]) -> tuple[list[int], tuple[Array, ...]]:
    """What `pad` reads of an argument, and what must live as long.

    Copies have room for the widest of these chunks, and strides that do for all.
    """
    width = max((part.copied(*chunk) for chunk in chunks), default=0)
    strides = np.array(part.empty(part.sizes(width)).strides, np.int64)
    size = WORD * (1 + 2 * len(strides)) + part.bytes_for(part.sizes(width))
    rows = np.zeros((part.workers, -(-size // LINE) * LINE), np.uint8)
    loops = _loops(part, strides)
    words = [address(rows), rows.shape[1], part.before, part.after, *map(address, part.ends)]
    words += [0 if part.fill is None else address(part.fill), address(loops)]
    words += [part.axis, len(strides), address(strides), part.view.itemsize]
    return words, (rows, loops, strides)


def _loops(part: PaddedPart, strides: Array) -> Array:
    """Of each axis but the split one, the innermost first: length, stride, and a copy's stride."""
    others = [axis for axis in reversed(part.order) if axis != part.axis]
    view = part.view
    loops = [(view.shape[axis], view.strides[axis], int(strides[axis])) for axis in others]
    return np.array(loops or [(1, 0, 0)], np.int64)

"""What machine code calls for a block that is continued beyond its ends, along either axis.

It does what `PaddedBlock.at` does, as `padding.pad` does what `PaddedPart.at` does. A copy is made
line by line: each index along the call's first axis is a line, whose middle is copied at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from shmcompute.chunking import Grid, PaddedBlock
from shmcompute.kernels import padding
from shmcompute.kernels.padding import LINE, WORD, copy_bytes, words_at
from shmcompute.kernels.trampoline import PAD_BLOCK_TYPES, address_of
from shmcompute.system.addresses import address
from shmcompute.system.atomic_words import compile_all, jitted
from shmcompute.system.compiling import call_compiler
from shmcompute.typing import Array

# The words of such an argument:
ROWS, ROW = 0, 1  # where the workers' memory is, and bytes of each
FIRST, SECOND = 2, 7  # words of the call's axes, see below
FILL = 12  # where the element is that stands beyond the ends, where indices are negative
LOOPS, LOOP_COUNT = 13, 14  # where there are, for each axis that is not cut, length, stride, number
NDIM, ITEMSIZE = 15, 17
SPACING = 16  # where there are `Copies.spacing` and the axes, the innermost first
# Of an axis of the call: the array's own axis (-1: it is not cut along that one), how much a block
# sees before and after its own, and where the indices are of what stands there.
AXIS, BEFORE, AFTER, LEFT, RIGHT = range(5)

_jitted = partial(jitted, inlines=(padding.__file__,))


@_jitted
def pad_block(
    data: int,
    place: int,
    geometry: int,
    start: int,
    stop: int,
    start2: int,
    stop2: int,
    worker: int,
) -> Any:
    """The address of words that tell what a block sees: address, shape and strides.

    `place` is where the argument's words are, and `geometry` where the array's shape and strides.
    """
    words, sizes = words_at(place), words_at(geometry)
    row, ndim = words[ROWS] + worker * words[ROW], words[NDIM]
    seen = words_at(row)
    for number in range(2 * ndim):
        seen[1 + number] = sizes[number]
    first, last, inside = window(words_at(place + WORD * FIRST), sizes, start, stop)
    first2, last2, inside2 = window(words_at(place + WORD * SECOND), sizes, start2, stop2)
    seen[0] = data
    narrow(seen, words_at(place + WORD * FIRST)[AXIS], ndim, first, last)
    narrow(seen, words_at(place + WORD * SECOND)[AXIS], ndim, first2, last2)
    if inside and inside2:
        return row
    seen[0] = row + WORD * (1 + 2 * ndim)
    space_out(words, seen)
    lines = words_at(place + WORD * FIRST)
    axis = lines[AXIS]
    step = sizes[ndim + axis] if axis >= 0 else 0
    stride = seen[1 + ndim + axis] if axis >= 0 else 0
    for index in range(first, last):
        line = source_of(lines, sizes, index)
        target = seen[0] + (index - first) * stride
        copy_line(place, seen, sizes, target, data + line * step, line < 0, first2, last2)
    return row


@_jitted
def window(cut: Any, sizes: Any, start: int, stop: int) -> Any:
    """What a block sees along an axis of the call, and whether all that is within the array."""
    if cut[AXIS] < 0:
        return 0, 1, True
    first, last = start - cut[BEFORE], stop + cut[AFTER]
    return first, last, first >= 0 and last <= sizes[cut[AXIS]]


@_jitted
def narrow(seen: Any, axis: int, ndim: int, first: int, last: int) -> None:
    """Have the words of what is seen tell no more than this of an axis."""
    if axis >= 0:
        seen[1 + axis] = last - first
        seen[0] += first * seen[1 + ndim + axis]


@_jitted
def space_out(words: Any, seen: Any) -> None:
    """Have the words of what is seen tell the strides of a copy of its shape (`Copies`)."""
    spacing, ndim = words_at(words[SPACING]), words[NDIM]
    step, gap, stride = spacing[0], spacing[1], words[ITEMSIZE]
    for number in range(ndim):
        axis = spacing[2 + number]
        seen[1 + ndim + axis] = stride * step
        stride *= seen[1 + axis] * step + gap
        step, gap = 1, 0


@_jitted
def source_of(cut: Any, sizes: Any, index: int) -> Any:
    """Which element stands at an index along an axis; a negative one is that of the constant."""
    if cut[AXIS] < 0:
        return 0
    if index < 0:
        return words_at(cut[LEFT])[index + cut[BEFORE]]
    length = sizes[cut[AXIS]]
    return words_at(cut[RIGHT])[index - length] if index >= length else index


@_jitted
def copy_line(
    place: int,
    seen: Any,
    sizes: Any,
    target: int,
    source: int,
    constant: int,
    first: int,
    last: int,
) -> None:
    """Copy what is seen along the call's second axis of one index along its first."""
    words, cut = words_at(place), words_at(place + WORD * SECOND)
    axis, ndim, size = cut[AXIS], words[NDIM], words[ITEMSIZE]
    step = sizes[ndim + axis] if axis >= 0 else 0
    stride = seen[1 + ndim + axis] if axis >= 0 else 0
    low, high = max(0, first), last if axis < 0 else min(last, sizes[axis])
    for index in range(first, last):
        if low <= index < high and not constant:
            continue
        beyond = -1 if constant else source_of(cut, sizes, index)
        to = target + (index - first) * stride
        if beyond < 0:
            copy_over(words, seen, to, words[FILL], size, 0)
        else:
            copy_over(words, seen, to, source + beyond * step, size, 1)
    if constant:
        return
    target, source = target + (low - first) * stride, source + low * step
    if step == size and stride == size:
        copy_over(words, seen, target, source, (high - low) * size, 1)
    else:
        for index in range(high - low):
            copy_over(words, seen, target + index * stride, source + index * step, size, 1)


@_jitted
def copy_over(words: Any, seen: Any, target: int, source: int, size: int, moves: int) -> None:
    """Copy `size` bytes for each index of the axes that are not cut; always the same without."""
    loops, axes, outer = words_at(words[LOOPS]), words[LOOP_COUNT], 1
    for axis in range(axes):
        outer *= loops[3 * axis]
    for number in range(outer):
        rest, from_, to = number, source, target
        for axis in range(axes):
            index = rest % loops[3 * axis]
            rest //= loops[3 * axis]
            from_ += index * loops[3 * axis + 1] * moves
            to += index * seen[1 + words[NDIM] + loops[3 * axis + 2]]
        copy_bytes(to, from_, size)


def prepare() -> None:
    """Have it compiled; else a run would wait for it."""
    if not pad_block.overloads:
        call_compiler(lambda: compile_all([pad_block]))


def address_of_pad() -> int | None:
    """Where the machine code of `pad_block` is."""
    prepare()
    version = address_of(pad_block, PAD_BLOCK_TYPES)
    return None if isinstance(version, str) else version[1]


def padding_words(block: PaddedBlock, grid: Sequence[Any]) -> tuple[list[int], tuple[Array, ...]]:
    """What `pad_block` reads of an argument, and what must live as long.

    Copies have room for the largest of these blocks.
    """
    shape = block.shape_of(_largest(grid))
    spacing = np.array([*block.spacing, *reversed(block.order)], np.int64)
    size = WORD * (1 + 2 * len(shape)) + block.bytes_for(shape)
    rows = np.zeros((block.workers, -(-size // LINE) * LINE), np.uint8)
    loops = _loops(block)
    fill = 0 if block.fill is None else address(block.fill)
    words = [address(rows), rows.shape[1]]
    for along, axis in enumerate(block.axes):
        words += [-1 if axis is None else axis, block.before[along], block.after[along]]
        words += map(address, block.ends[along])
    words += [fill, address(loops), len(loops), len(shape), address(spacing)]
    return [*words, block.view.itemsize], (rows, loops, spacing)


def _largest(grid: Sequence[Any]) -> list[int]:
    """The size that no block exceeds."""
    if isinstance(grid, Grid):
        return [max((stop - start for start, stop in cuts), default=0) for cuts in grid.axes()]
    sizes = [[last - first for first, last in zip(*block, strict=True)] for block in grid]
    return [max(along) for along in zip(*sizes, strict=True)] or [0, 0]


def _loops(block: PaddedBlock) -> Array:
    """Of each axis that is not cut, the innermost first: length, stride and number."""
    others = [axis for axis in reversed(block.order) if axis not in block.axes]
    loops = [(block.view.shape[axis], block.view.strides[axis], axis) for axis in others]
    return np.array(loops or np.empty((0, 3)), np.int64)

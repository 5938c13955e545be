"""Halo in two dimensions: blocks that see more than their own, as `numpy.pad` has it.

It is what `halo` is along one axis; what stands beyond an end is told for each axis by itself, as
`numpy.pad` pads one axis after another.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shmcompute.chunking.bound import Block, ChunkCall
from shmcompute.chunking.copies import Copies
from shmcompute.chunking.grid import Cuts, Grid
from shmcompute.chunking.halo import LEAST, Ends, beyond, cut_at
from shmcompute.chunking.markers import Halo
from shmcompute.typing import Array

_NO_ENDS: Ends = (np.empty(0, np.intp),) * 2
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class PaddedBlock(Copies, Block):
    """An array that is cut along both axes of the call, or one, and continued beyond its ends."""

    before: Pair = (0, 0)  # along each of the call's axes
    ends: tuple[Ends, Ends] = (_NO_ENDS, _NO_ENDS)
    fill: Array | None = None  # what stands there instead, for a constant
    workers: int = 1  # how many may run at the same time
    # Shape and strides: plans of others must not have its machine code, which has room for these.
    geometry: tuple[tuple[int, ...], ...] = ()

    @property
    def after(self) -> Pair:
        """How many elements more a block sees behind its own."""
        return self.margins[0] - self.before[0], self.margins[1] - self.before[1]

    @property
    def lengths(self) -> tuple[int | None, int | None]:
        first, second = (None if axis is None else self.view.shape[axis] for axis in self.axes)
        return first, second

    def at(self, call: ChunkCall) -> Array:
        edges = [*zip(call.start, call.stop, strict=True)]
        if any(self.copied(along, *edge) for along, edge in enumerate(edges)):
            return self._padded(edges)
        moved = [start - before for start, before in zip(call.start, self.before, strict=True)]
        kept = [stop - before for stop, before in zip(call.stop, self.before, strict=True)]
        return self.cut(moved, kept)

    def variant(self, along: int, start: int, stop: int) -> Hashable:
        return self.copied(along, start, stop) > 0, super().variant(along, start, stop)

    def copied(self, along: int, start: int, stop: int) -> int:
        """How many elements along an axis of the call are copied; 0 if it sees the array."""
        length = self.lengths[along]
        if length is None:
            return 0
        within = start >= self.before[along] and stop + self.after[along] <= length
        return 0 if within else stop - start + self.margins[along]

    def _padded(self, edges: Sequence[Pair]) -> Array:
        """A copy of what the block sees."""
        copy = self.empty(self.shape_of([stop - start for start, stop in edges]))
        seen: Array = self.view
        missing: list[Any] = []
        for along, axis in enumerate(self.axes):
            if axis is not None:
                indices = self._indices(along, *edges[along])
                seen = np.take(seen, indices, axis=axis)
                missing.append((*[slice(None)] * axis, indices < 0))
        copy[...] = seen
        for where in missing if self.fill is not None else ():
            copy[where] = self.fill
        copy.flags.writeable = False
        return copy.view(type(self.view))

    def _indices(self, along: int, start: int, stop: int) -> Array:
        """Which elements a block sees along an axis of the call; -1 for a constant."""
        (left, right), length = self.ends[along], self.lengths[along] or 0
        first, last = start - self.before[along], stop + self.after[along]
        own = np.arange(max(0, first), min(last, length))
        return np.concatenate([left[start:], own, right[: max(0, last - length)]])

    def shape_of(self, sizes: Sequence[int]) -> list[int]:
        """The shape of what a block of that size sees."""
        shape = [*self.view.shape]
        for axis, size, margin in zip(self.axes, sizes, self.margins, strict=True):
            if axis is not None:
                shape[axis] = size + margin
        return shape

    @property
    def sample(self) -> Array:
        return Block(self.view, self.axes, writes=False).cut((0, 0), (2, 2))


def block_with_halo(position: int, block: Block, marker: Halo, workers: int) -> Block:
    """What a marker is bound to.

    Raises
    ------
    ValueError
        For a depth along an axis along which it is not cut; if `numpy.pad` knows nothing to put
        beyond the ends, or the number does not fit.
    """
    view, (first, second) = block.view, _depths(position, block, marker)
    margins = sum(first), sum(second)
    if marker.boundary is None or not any(margins):
        return Block(view, block.axes, writes=False, margins=margins)
    ends, fill = [_NO_ENDS, _NO_ENDS], None
    for along, depths in enumerate((first, second)):
        axis = block.axes[along]
        if axis is not None:
            ends[along], fill = beyond(position, view, axis, depths, marker.boundary)
    before, geometry = (first[0], second[0]), (view.shape, view.strides)
    both = ends[0], ends[1]
    return PaddedBlock(view, block.axes, False, margins, before, both, fill, workers, geometry)


def _depths(position: int, block: Block, marker: Halo) -> tuple[Pair, Pair]:
    """How much a block sees before and after its own, along each of the call's axes."""
    each = marker.depth if isinstance(marker.depth, tuple) else (marker.depth, marker.depth)
    first, second = (one if isinstance(one, tuple) else (one, one) for one in each)
    pairs = first, second
    if None in block.axes:
        missing = block.axes.index(None)
        if isinstance(marker.depth, tuple) and any(pairs[missing]):
            raise ValueError(
                f"argument {position}: halo: depth {marker.depth!r}: each block sees all of it "
                f"along the call's {('first', 'second')[missing]} axis (axis={block.axes}), so "
                "the depth there must be 0"
            )
        return ((0, 0), second) if missing == 0 else (first, (0, 0))
    return pairs


def cut_ends_of_blocks(grid: Grid, blocks: Sequence[PaddedBlock]) -> Grid:
    """The blocks, those at the ends cut once more where that saves much copying."""
    cuts = [_cut_ends(cuts, along, blocks) for along, cuts in enumerate(grid.axes())]
    return Grid.of(cuts[0], cuts[1], grid.band)


def _cut_ends(cuts: Cuts, along: int, blocks: Sequence[PaddedBlock]) -> Cuts:
    left = max(block.before[along] for block in blocks)
    right = max(block.after[along] for block in blocks)
    if not (left or right):
        return cuts
    return cut_at(cuts, max(left, LEAST) if left else 0, max(right, LEAST) if right else 0)

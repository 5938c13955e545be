"""Halo: arrays of which chunks see more than their own part, beyond the ends as `numpy.pad` has it.

What lies within the array is a view of it. A chunk that sees beyond an end gets a padded copy of
its own. Whoever runs the chunk makes that copy when it starts, so it is of what the array holds in
this run, and nobody waits for it; no chunk writes to the array meanwhile, which is refused. Chunks
at the ends are cut narrow, so little is copied. Along two axes it is `padded_block`; machine code
makes the copy by `kernels.padding`.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from shmcompute.chunking.bound import ChunkCall, Part
from shmcompute.chunking.copies import Copies
from shmcompute.chunking.markers import Halo
from shmcompute.chunking.schedule import Chunk
from shmcompute.typing import Array

CHEAP = 1 << 14  # bytes that are copied as quickly as another chunk is called
LEAST = 2  # the length of a chunk; one of length 1 may be of another Numba type


Ends = tuple[Array, Array]  # the indices of what stands before an array, and after it


@dataclass(frozen=True, eq=False)
class PaddedPart(Copies, Part):
    """An array that is cut along `axis`, and is continued beyond its ends."""

    before: int = 0
    ends: Ends = (np.empty(0, np.intp),) * 2  # which index stands before, and after
    fill: Array | None = None  # what stands there instead, for a constant
    workers: int = 1  # how many may run at the same time
    # Shape and strides: plans of others must not have its machine code, which has room for these.
    geometry: tuple[tuple[int, ...], ...] = ()

    @property
    def after(self) -> int:
        """How many elements more a chunk sees behind its own."""
        return self.margin - self.before

    @property
    def length(self) -> int:
        return int(self.view.shape[self.axis])

    def at(self, call: ChunkCall) -> Array:
        first, last = call.start - self.before, call.stop + self.after
        return self._padded(call) if self.copied(call.start, call.stop) else self.cut(first, last)

    def variant(self, start: int, stop: int) -> Hashable:
        return self.copied(start, stop) > 0, super().variant(start, stop)

    def copied(self, start: int, stop: int) -> int:
        """How many elements along the axis are copied for a chunk; 0 if it sees the array."""
        within = start >= self.before and stop + self.after <= self.length
        return 0 if within else stop - start + self.margin

    def _padded(self, call: ChunkCall) -> Array:
        """A copy of what the chunk sees."""
        first, last = call.start - self.before, call.stop + self.after
        left, right = self.ends[0][call.start :], self.ends[1][: max(0, last - self.length)]
        middle = self.cut(max(0, first), last)
        copy = self.empty(self.sizes(last - first))
        along = np.moveaxis(copy, self.axis, 0)
        along[len(left) : len(along) - len(right)] = np.moveaxis(middle, self.axis, 0)
        along[: len(left)] = self._beyond(left)
        along[len(along) - len(right) :] = self._beyond(right)
        copy.flags.writeable = False
        return copy.view(type(self.view))

    def _beyond(self, indices: Array) -> Array:
        """What stands at some places beyond an end, along the first axis."""
        return np.moveaxis(self.view, self.axis, 0)[indices] if self.fill is None else self.fill

    def sizes(self, width: int) -> list[int]:
        """The shape of what a chunk sees that sees so many elements along the axis."""
        sizes = [*self.view.shape]
        sizes[self.axis] = width
        return sizes

    @property
    def sample(self) -> Array:
        return self.cut(0, 2)


def part_with_halo(position: int, view: Array, axis: int, marker: Halo, workers: int) -> Part:
    """What a marker is bound to.

    Raises
    ------
    ValueError
        If `numpy.pad` knows nothing to put beyond the ends, or the number does not fit.
    """
    before, after = depths_of(position, marker)
    margin = before + after
    if marker.boundary is None or not margin:
        return Part(view, axis, writes=False, margin=margin)
    ends, fill = beyond(position, view, axis, (before, after), marker.boundary)
    return PaddedPart(
        view, axis, False, margin, before, ends, fill, workers, (view.shape, view.strides)
    )


def depths_of(position: int, marker: Halo) -> tuple[int, int]:
    """How much a chunk sees before and after its own, along one axis."""
    pair = marker.depth if isinstance(marker.depth, tuple) else (marker.depth, marker.depth)
    before, after = pair
    if isinstance(before, tuple) or isinstance(after, tuple):
        raise TypeError(
            f"argument {position}: halo: depth: expected a whole number, or (before, after), as "
            f"the call is along one axis, got {marker.depth!r}"
        )
    return before, after


def beyond(
    position: int, view: Array, axis: int, depths: tuple[int, int], boundary: Any
) -> tuple[Ends, Array | None]:
    """Which elements stand before an array and after it, and what does instead for a number.

    Raises
    ------
    ValueError
        If `numpy.pad` knows nothing to put there, or the number does not fit.
    """
    try:
        fill = None if isinstance(boundary, str) else _fill(view.dtype, boundary)
        return ends_of(view.shape[axis], depths, boundary), fill
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"argument {position} (shape {view.shape}, {view.dtype}): numpy.pad can't continue it "
            f"along axis {axis} by {depths[0]} and {depths[1]} elements of "
            f"boundary={boundary!r}: {error}"
        ) from error


def _fill(dtype: np.dtype[Any], value: Any) -> Array:
    """The element that stands for a number, as NumPy converts it."""
    padded: Array = np.pad(np.empty(0, dtype), (1, 0), constant_values=value)
    return padded[:1].reshape(())


def ends_of(length: int, depths: tuple[int, int], boundary: Any) -> Ends:
    """The indices of the elements that stand before an array and after it; -1 for a number.

    NumPy itself says which: it pads the indices. Those too far from both ends don't matter.
    """
    reach = max(depths) + 1
    indices = np.arange(min(length, 2 * reach))
    indices[reach:] += length - len(indices)
    if isinstance(boundary, str):
        padded = np.pad(indices, depths, boundary)  # type: ignore[call-overload]
    else:
        padded = np.pad(indices, depths, constant_values=-1)
    return padded[: depths[0]].copy(), padded[depths[0] + len(indices) :].copy()


def cut_ends(chunks: Sequence[Chunk], parts: Sequence[PaddedPart]) -> tuple[Chunk, ...]:
    """The chunks, those at the ends cut once more where that saves much copying."""
    left = max((_narrow(part, part.before) for part in parts), default=0)
    right = max((_narrow(part, part.after) for part in parts), default=0)
    return cut_at(chunks, left, right)


def cut_at(chunks: Sequence[Chunk], left: int, right: int) -> tuple[Chunk, ...]:
    """The chunks, cut once more so far from each end, where that saves much copying."""
    length = chunks[-1][1] if chunks else 0
    edges = [0, *(stop for _, stop in chunks)]
    for edge, end in ((left, 0), (length - right, length)):
        place = bisect(edges, edge)
        if not 0 < edge < length or edges[place - 1] == edge:
            continue
        start, stop = edges[place - 1], edges[place]
        copied, seen = (edge - start, stop - edge)[:: -1 if end else 1]
        if seen >= copied >= LEAST:
            edges.insert(place, edge)
    return tuple(pairwise(edges))


def _narrow(part: PaddedPart, depth: int) -> int:
    """How wide a chunk at an end is to be that sees so far beyond it."""
    cheap = CHEAP * part.length // max(1, part.view.nbytes)
    return max(depth, cheap, LEAST) if depth else 0

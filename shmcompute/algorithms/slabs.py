"""`Slabs`: an array in parts along one of its axes, cut by its shape and item size alone.

So what is combined of parts is the same for any number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass

from shmcompute.typing import Array

PART = 1 << 20  # bytes: threads need some µs between parts, and it fits in a second-level cache
MOST = 128  # parts, which keep some dozens of cores busy to the end
SHORT = 16  # of an axis: too few pieces to be dealt out evenly


@dataclass(frozen=True)
class Slabs:
    """Which axis is cut, and where."""

    axis: int
    edges: list[int]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.edges) - 1

    def length(self, number: int) -> int:
        """How long one is along the axis."""
        return self.edges[number + 1] - self.edges[number]

    def index(self, number: int) -> tuple[slice, ...]:
        """Where it is in the array, or in one of the same length along the axis."""
        return self.place(self.edges[number], self.edges[number + 1])

    def place(self, start: int, stop: int) -> tuple[slice, ...]:
        """The index of a range along the axis."""
        return (*[slice(None)] * self.axis, slice(start, stop))


def slabs(x: Array, *, most: int = MOST, whole: int | None = None) -> Slabs | None:
    """Cut an array; None if it is one slab.

    Parameters
    ----------
    x : ndarray
    most : int
        How many slabs there may be.
    whole : int, optional
        An axis that is not cut.
    """
    # The farther apart the elements along an axis are, the more of a slab lies together.
    axes = sorted(range(x.ndim), key=lambda axis: -abs(x.strides[axis]))
    axes = [axis for axis in axes if axis != whole]
    if not axes:
        return None
    longest = max(axes, key=lambda axis: x.shape[axis])
    axis = next((axis for axis in axes if x.shape[axis] >= SHORT), longest)
    length = x.shape[axis]
    count = min(x.nbytes // PART, most, length)
    if count < 2:
        return None
    return Slabs(axis, [length * number // count for number in range(count + 1)])

"""`Cutting`: how a call in two dimensions is cut into a `Grid` of blocks."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

from shmcompute.chunking.grid import Cuts, Grid, Shape
from shmcompute.chunking.schedule import Chunk, Chunks
from shmcompute.config import SCHEDULES, count, one_of

PER_WORKER = 8  # blocks a worker, at least, where it is left to us: they differ in size
LEAST = 2  # of a side, where it can be; an array of one row may be of another Numba type
LINE = 16  # elements; blocks that begin at such a multiple seldom share a cache line


class Cutting(NamedTuple):
    """How a grid is cut, where the call does not say.

    Parameters
    ----------
    workers : int
        How many share the blocks.
    area : int
        Elements of a block, at most.
    by_columns : bool
        Whether columns, not rows, are what lies together in memory.
    blocks : int, optional
        How many at least. By default some for each worker.
    """

    workers: int
    area: int
    by_columns: bool = False
    blocks: int | None = None

    def cut(self, shape: Shape, schedule: str, chunksize: Any) -> Grid:
        """The blocks of a call, by whatever schedule: see `schedule.chunks`."""
        one_of("schedule", schedule, SCHEDULES)
        sizes = _asked(chunksize)
        if 0 in shape:
            return Grid((), (), 1)
        outer, inner = int(self.by_columns), int(not self.by_columns)
        cuts: list[Cuts] = [(), ()]
        if sizes is None:
            cuts[outer], cuts[inner] = self._default(shape[outer], shape[inner])
        else:
            cuts[outer] = _every(shape[outer], sizes[outer])
            cuts[inner] = _every(shape[inner], sizes[inner])
        if schedule == "guided":
            smallest = LEAST if sizes is None else sizes[outer]
            cuts[outer] = self._falling(shape[outer], len(cuts[inner]), smallest)
        return Grid.of(cuts[0], cuts[1], -self.workers if self.by_columns else self.workers)

    def _default(self, outer: int, inner: int) -> tuple[Chunks, Chunks]:
        """Nearly square blocks, equally many for each worker."""
        blocks = self.workers * PER_WORKER if self.blocks is None else self.blocks
        area = max(1, min(self.area, outer * inner // max(1, blocks)))
        height = min(outer, math.isqrt(area))
        width = min(inner, area // height)
        across = _every(inner, _even(inner, width))
        along = -(-outer // min(outer, max(1, area // width)))
        together = self.workers // math.gcd(self.workers, len(across))
        if together <= along and along + together <= outer:
            along = -(-along // together) * together
        return Chunks(0, outer, along, 0), across

    def _falling(self, length: int, others: int, smallest: int) -> tuple[Chunk, ...]:
        """Sizes that fall with what remains: a worker's share of it, or half, divided by others."""
        share = min(others / self.workers, 0.5) if others > 1 else 1 / self.workers
        edges = [0]
        while (left := length - edges[-1]) > 0:
            size = min(left, max(smallest, math.ceil(left * share)))
            edges.append(edges[-1] + (left if left - size < LEAST else size))
        return tuple(itertools.pairwise(edges))


def _asked(chunksize: Any) -> Shape | None:
    """The sizes of blocks that the caller wants."""
    if chunksize is None:
        return None
    pair = chunksize if isinstance(chunksize, tuple) else (chunksize, chunksize)
    if len(pair) != 2:
        raise ValueError(
            "chunksize: expected a whole number or a tuple (rows, columns), as axis names two, "
            f"got {chunksize!r}"
        )
    return count("chunksize", pair[0]), count("chunksize", pair[1])


def _every(length: int, size: int) -> Chunks:
    return Chunks(0, length, -(-length // size), size)


def _even(length: int, size: int) -> int:
    """About that size, so that the last one is not much shorter than the others."""
    size = -(-length // -(-length // size))
    size = -(-size // LINE) * LINE if size >= 4 * LINE else size
    return size + LINE if 0 < length % size < LEAST <= size else size

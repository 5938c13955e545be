"""Chunks: pure arithmetic of half-open ranges along the split axis.

The schedules are OpenMP's. All three give a list of chunks; they differ in who takes which:
``"static"`` chunks are dealt in turn before the run, others go to the next free worker, which takes
one by `backends.doorbell.control_block.take`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shmcompute.config import SCHEDULES, count, one_of

Chunk = tuple[int, int]  # [start, stop)

PER_WORKER = 8  # chunks a worker of a dynamic schedule without a chunksize


@dataclass(slots=True)  # not frozen: that makes each four times as slow to make
class Chunks(Sequence[Chunk]):
    """Chunks of ``[start, start + length)`` by a rule that four numbers tell.

    Machine code has the same rule: `backends.doorbell.control_block.edge`.
    """

    start: int
    length: int
    chunk_count: int
    size: int  # elements of each, but for the last; 0: all are of one size, or differ by one

    def __len__(self) -> int:
        return self.chunk_count

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return tuple(self[i] for i in range(*number.indices(self.chunk_count)))
        if not -self.chunk_count <= number < self.chunk_count:
            raise IndexError(number)
        number %= self.chunk_count
        return self._edge(number), self._edge(number + 1)

    def __iter__(self) -> Iterator[Chunk]:
        return map(self.__getitem__, range(self.chunk_count))

    def _edge(self, number: int) -> int:
        if self.size:
            return self.start + min(number * self.size, self.length)
        return self.start + self.length * number // self.chunk_count

    @property
    def ends(self) -> tuple[Chunk, ...]:
        """The first and the last: there are no other lengths than theirs."""
        return (self[0], self[-1]) if self.chunk_count else ()


def chunks(
    length: int,
    workers: int,
    schedule: str,
    chunksize: Any,
    start: int = 0,
    per_worker: int | None = None,
) -> Sequence[Chunk]:
    """Cut ``[start, start + length)`` for this many workers.

    Parameters
    ----------
    length : int
        Elements along the split axis.
    workers : int
        How many share them.
    schedule : {'static', 'dynamic', 'guided'}
        ``'guided'``: sizes fall with what remains, never below `chunksize` (but for the last).
    chunksize : int, optional
        Elements a chunk. By default one block a worker for ``'static'``, about eight for
        ``'dynamic'``, and down to 1 for ``'guided'``.
    start : int
        The first index.
    per_worker : int, optional
        Another number of chunks for each worker, for the first two.
    """
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        one_of("schedule", schedule, SCHEDULES)  # raises
    if isinstance(chunksize, tuple):
        raise TypeError(
            f"chunksize: expected a whole number, got {chunksize!r}; a pair is for a call along "
            "two axes, axis=(0, 1)"
        )
    if chunksize is not None:
        chunksize = count("chunksize", chunksize)
    if schedule == "guided":
        edges = _guided(start, length, workers, chunksize or 1)
        return tuple(itertools.pairwise(edges))
    if chunksize is not None:
        return Chunks(start, length, -(-length // chunksize), chunksize)
    if per_worker is None:
        per_worker = 1 if schedule == "static" else PER_WORKER
    return Chunks(start, length, min(workers * per_worker, length), 0)


def _guided(start: int, length: int, workers: int, smallest: int) -> list[int]:
    edges = [start]
    while (left := start + length - edges[-1]) > 0:
        edges.append(edges[-1] + min(left, max(smallest, -(-left // workers))))
    return edges

"""Chunks: pure arithmetic of half-open ranges along the split axis.

The schedules are OpenMP's. All three give a list of chunks; they differ in who takes which:
``"static"`` chunks are dealt in turn before the run, others go to the next free worker.
"""

from __future__ import annotations

import itertools

from shmcompute.config import SCHEDULES, count, one_of

Chunk = tuple[int, int]  # [start, stop)

PER_WORKER = 8  # chunks a worker of a dynamic schedule without a chunksize


def chunks(length: int, workers: int, schedule: str, chunksize: int | None) -> tuple[Chunk, ...]:
    """Cut ``[0, length)`` for this many workers.

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
    """
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        one_of("schedule", schedule, SCHEDULES)  # raises
    if chunksize is not None:
        chunksize = count("chunksize", chunksize)
    if schedule == "guided":
        return _guided(length, workers, chunksize or 1)
    if chunksize is not None:
        return _sized(length, chunksize)
    return _blocks(length, workers if schedule == "static" else workers * PER_WORKER)


def _blocks(length: int, blocks: int) -> tuple[Chunk, ...]:
    """`blocks` chunks whose sizes differ by at most one; fewer where there are fewer elements."""
    blocks = min(blocks, length)
    edges = [length * block // blocks for block in range(blocks + 1)] if blocks else [0]
    return tuple(itertools.pairwise(edges))


def _sized(length: int, chunksize: int) -> tuple[Chunk, ...]:
    return tuple((start, min(start + chunksize, length)) for start in range(0, length, chunksize))


def _guided(length: int, workers: int, smallest: int) -> tuple[Chunk, ...]:
    edges = [0]
    while (left := length - edges[-1]) > 0:
        edges.append(edges[-1] + min(left, max(smallest, -(-left // workers))))
    return tuple(itertools.pairwise(edges))

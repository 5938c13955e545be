"""`Journal`: what chunks held before they were begun, so that a dead worker's can be run again.

In-place work can't simply be repeated: half of a chunk may be done. With a journal each worker
copies what its kernel is about to write, says so, runs, and says that it is done. All of that
stands in a segment, so it outlives the worker. Whatever the moment of a worker's death, a chunk is
then one of: untouched; begun, with its old content in the journal; done.

The states of chunks are single bytes and change in one store, so there is none in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from shmcompute import storage
from shmcompute.system import context
from shmcompute.typing import Array

LINE = 64  # bytes; where the next copy starts
UNTOUCHED, DONE = 0, 255  # of a chunk; in between: one more than the row that has its old content
ROWS = DONE - 1


@dataclass(frozen=True, eq=False)
class Journal:
    """States of chunks, and one row for each worker.

    Parameters
    ----------
    states : ndarray of uint8, shape (chunks,)
    rows : ndarray of uint8, shape (workers, bytes)
        Old contents. The last is for the calling process.
    """

    states: Array
    rows: Array

    @classmethod
    def create(cls, chunks: int, workers: int, size: int) -> Journal:
        """A journal for chunks that write `size` bytes at most."""
        width = max(LINE, size)
        total = -(-chunks // LINE) * LINE
        layout = storage.Layout.of((total + workers * width,), np.uint8, "C")
        segment, memory = storage.create(layout)
        segment.clear()
        return cls(memory[:chunks], memory[total:].reshape(workers, width))

    def keep(self, number: int, parts: Iterable[Array]) -> None:
        """Copy what chunk `number` is about to write."""
        row = len(self.rows) - 1 if context.worker is None else context.worker
        for part, copy in self._copies(row, parts):
            copy[...] = part
        self.states[number] = row + 1

    def commit(self, number: int) -> None:
        """The chunk is done."""
        self.states[number] = DONE

    def restore(self, number: int, parts: Iterable[Array]) -> None:
        """Have a chunk that was begun read as before."""
        if self.states[number] not in (UNTOUCHED, DONE):
            for part, copy in self._copies(int(self.states[number]) - 1, parts):
                part[...] = copy
            self.states[number] = UNTOUCHED

    def undone(self) -> list[int]:
        """Numbers of the chunks that are not done."""
        return np.flatnonzero(self.states != DONE).tolist()

    def _copies(self, row: int, parts: Iterable[Array]) -> Iterable[tuple[Array, Array]]:
        at = 0
        for part in parts:
            yield part, np.ndarray(part.shape, part.dtype, self.rows[row], at)
            at += _rounded(part.nbytes)


def size_of(parts: Sequence[Array]) -> int:
    """Bytes that copies of these take."""
    return sum(_rounded(part.nbytes) for part in parts)


def _rounded(size: int) -> int:
    return -(-size // LINE) * LINE

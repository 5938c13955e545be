"""`Journal`: the old content of chunks, so that those of a dead worker can be run again.

In-place work can't simply be repeated: half of a chunk may be done. With a journal each worker
first copies what its kernel is about to write, then marks the chunk as begun, runs it, and marks it
as done. Copies and marks are in a segment, so they outlive the worker. Whenever a worker dies, each
chunk is therefore untouched; or begun, with its old content in the journal; or done.

The state of a chunk is one aligned word that changes in one store, so no state in between can be
seen; it is wide enough for the row of any worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from shmcompute import storage
from shmcompute.system import context
from shmcompute.typing import Array

LINE = 64  # bytes; copies start at multiples of it
# States of a chunk. In between: begun, and one more than the row that has its old content.
UNTOUCHED, DONE = 0, 2**32 - 1


@dataclass(frozen=True, eq=False)
class Journal:
    """States of chunks, and one row for each worker.

    Parameters
    ----------
    states : ndarray of uint32, shape (chunks,)
    rows : ndarray of uint8, shape (workers, bytes)
        Old content; a worker writes only its own row, the calling process the last one.
    """

    states: Array
    rows: Array

    @classmethod
    def create(cls, chunks: int, workers: int, size: int) -> Journal:
        """A journal for chunks that write `size` bytes at most."""
        width = max(LINE, size)
        states = _rounded(4 * chunks)
        layout = storage.Layout.of((states + workers * width,), np.uint8, "C")
        segment, memory = storage.create(layout)
        segment.clear()
        words = memory[: 4 * chunks].view(np.uint32)
        return cls(words, memory[states:].reshape(workers, width))

    def keep(self, number: int, parts: Iterable[Array]) -> None:
        """Copy what chunk `number` is about to write, and only then mark it as begun."""
        row = len(self.rows) - 1 if context.worker is None else context.worker
        for part, copy in self._copies(row, parts):
            copy[...] = part
        self.states[number] = row + 1

    def commit(self, number: int) -> None:
        """Mark a chunk as done."""
        self.states[number] = DONE

    def restore(self, number: int, parts: Iterable[Array]) -> None:
        """Give a chunk that was begun its old content back; its worker must be dead or done."""
        if self.states[number] not in (UNTOUCHED, DONE):
            for part, copy in self._copies(int(self.states[number]) - 1, parts):
                part[...] = copy
            self.states[number] = UNTOUCHED

    def undone(self) -> list[int]:
        """Numbers of the chunks that are not done."""
        return np.flatnonzero(self.states != DONE).tolist()

    def _copies(self, row: int, parts: Iterable[Array]) -> Iterable[tuple[Array, Array]]:
        start = 0
        for part in parts:
            yield part, np.ndarray(part.shape, part.dtype, self.rows[row], start)
            start += _rounded(part.nbytes)


def size_of(parts: Sequence[Array]) -> int:
    """Bytes that copies of these take."""
    return sum(_rounded(part.nbytes) for part in parts)


def _rounded(size: int) -> int:
    return -(-size // LINE) * LINE

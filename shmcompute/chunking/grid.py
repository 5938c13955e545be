"""`Grid`: blocks in two dimensions, by a rule that a few numbers tell.

A block is ``(start, stop)`` as a chunk is, each an index along the call's first axis and one along
its second. Blocks are *numbered* row by row, as a matrix is read. They are *dealt* in bands: a band
is as many rows of blocks as there are workers, and goes on column by column. So workers that take
turns each go along a row of blocks of their own, side by side: what belongs to the row (a panel of
a matrix product, the left neighbour's edge) stays in the core's own cache, what belongs to the
column is fetched once into the cache that cores share, and no two of them write next to each other
in one row of memory, where they would fight for cache lines. Where columns are what lies together
in memory, bands are of columns. (It is the "grouped ordering" of Triton's matrix product, with the
workers as the group.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shmcompute.chunking.schedule import Chunk, Chunks

Shape = tuple[int, int]
Cuts = Chunks | tuple[Chunk, ...]  # along one axis


@dataclass(frozen=True, slots=True)
class Grid(Sequence[Any]):
    """Blocks, in the order in which they are dealt.

    Machine code has the same rule: `backends.doorbell.control_block.share_of_blocks`.
    """

    rows: Cuts  # both by a rule, or both by their edges
    columns: Cuts
    band: int  # how many rows of blocks are gone along side by side; below 0: columns of blocks

    @classmethod
    def of(cls, rows: Cuts, columns: Cuts, band: int) -> Grid:
        """The grid of what is cut so, by a rule or not."""
        ruled = isinstance(rows, Chunks) and isinstance(columns, Chunks)
        return cls(rows, columns, band) if ruled else cls(tuple(rows), tuple(columns), band)

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return tuple(self[i] for i in range(*position.indices(len(self))))
        if not -len(self) <= position < len(self):
            raise IndexError(position)
        row, column = self.place(position % len(self))
        return tuple(zip(self.rows[row], self.columns[column], strict=True))

    def place(self, position: int) -> Shape:
        """The row and the column of a block that is dealt so late."""
        if self.band > 0:
            return _place(position, len(self.rows), len(self.columns), self.band)
        column, row = _place(position, len(self.columns), len(self.rows), -self.band)
        return row, column

    def number(self, position: int) -> int:
        """Its number, row by row."""
        row, column = self.place(position)
        return row * len(self.columns) + column

    def by_number(self) -> list[Any]:
        """The blocks, row by row."""
        return sorted(self)

    @property
    def is_ruled(self) -> bool:
        """Whether a rule tells of all; else the edges along an axis are a list."""
        return isinstance(self.rows, Chunks)

    def axes(self) -> tuple[Cuts, Cuts]:
        """What it is made of."""
        return self.rows, self.columns


def _place(position: int, rows: int, columns: int, band: int) -> Shape:
    first = position // (band * columns) * band
    column, row = divmod(position - first * columns, min(band, rows - first))
    return first + row, column

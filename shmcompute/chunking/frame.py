"""`Frame`: where the arrays of a call are, and how its chunks are cut, as words of 64 bits.

So one plan serves calls that differ in these alone. A frame begins with the rule of the chunks:
how many there are, where the first starts, the length of all, and the size of each (see `Chunks`;
-1: the plan itself has their edges). In two dimensions (see `Grid`) only the first of these tells
of all blocks; a band follows, and two more rules: of the rows and of the columns. Then come, for
each array of each kernel in turn, the number of the segment that it is in, its offset there in
bytes, its shape and its strides. Segments are numbered by who makes the frame. Number 0 is all of
memory: its offsets are addresses.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from shmcompute.chunking.grid import Grid
from shmcompute.chunking.schedule import Chunk, Chunks
from shmcompute.system.addresses import address
from shmcompute.typing import Array

WORD = 8  # bytes
HEAD = 13 * WORD
WORDS = 4096  # of a frame at most: as many as a control block has room for
BY_PLAN = -1  # the size of chunks whose edges the plan has

_HEAD = struct.Struct("<13q")
_NO_GRID = (0,) * 9


class NumberedSegment(NamedTuple):
    """A segment, and the number that frames have for it."""

    number: int
    handle: Any


ALL_MEMORY = NumberedSegment(0, None)  # of this process

Place = tuple[NumberedSegment, int]  # and the offset in bytes


class Places(NamedTuple):
    """Where the arrays of a call are."""

    words: bytes
    segments: frozenset[NumberedSegment]


class ArrayPlace(NamedTuple):
    """What a frame tells of one array."""

    segment: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def words_in_frame(ndim: int) -> int:
    """How many words an array of so many axes takes."""
    return 2 + 2 * ndim


def pack_head(chunks: Sequence[Chunk]) -> bytes:
    """The rule of the chunks as bytes."""
    if isinstance(chunks, Grid):
        rows, columns = map(_rule, chunks.axes())
        return _HEAD.pack(len(chunks), 0, 0, 0, chunks.band, *rows, *columns)
    return _HEAD.pack(*_rule(chunks), *_NO_GRID)


def _rule(chunks: Sequence[Chunk]) -> tuple[int, int, int, int]:
    if isinstance(chunks, Chunks):
        return chunks.chunk_count, chunks.start, chunks.length, chunks.size
    return len(chunks), 0, 0, BY_PLAN


def unpack_head(words: memoryview) -> Sequence[Chunk] | None:
    """The chunks; None if the plan has their edges."""
    if words[4] == 0:
        return _ruled(words[:4])
    rows, columns = _ruled(words[5:9]), _ruled(words[9:13])
    return None if rows is None or columns is None else Grid(rows, columns, words[4])


def _ruled(words: memoryview) -> Chunks | None:
    count, start, length, size = words
    return None if size == BY_PLAN else Chunks(start, length, count, size)


def find_places(views: Sequence[Array], place: Callable[[Array], Place]) -> Places:
    """Where these arrays are.

    Raises
    ------
    ValueError
        If they are too many.
    """
    words: list[int] = []
    segments = set()
    for view in views:
        segment, offset = place(view)
        segments.add(segment)
        words += (segment.number, offset, *view.shape, *view.strides)
    if len(words) + HEAD // WORD > WORDS:
        raise ValueError(
            f"{len(views)} arrays are more than one call can take (some {WORDS // 4}); make it "
            "several calls, or put them into one array"
        )
    return Places(struct.pack(f"<{len(words)}q", *words), frozenset(segments - {ALL_MEMORY}))


def unpack_arrays(words: memoryview, ndims: Sequence[int]) -> Iterator[ArrayPlace]:
    """Where arrays of so many axes are."""
    at = HEAD // WORD
    for ndim in ndims:
        segment, offset, *sizes = words[at : at + words_in_frame(ndim)]
        yield ArrayPlace(segment, offset, tuple(sizes[:ndim]), tuple(sizes[ndim:]))
        at += words_in_frame(ndim)


def place_in_memory(view: Array) -> Place:
    """Where an array is for who shares this process's memory."""
    return ALL_MEMORY, address(view)


def bytes_of_frame(ndims: Sequence[int]) -> int:
    """How long a frame is that tells of such arrays."""
    return HEAD + WORD * sum(map(words_in_frame, ndims))

"""`Arguments`: what the chunks of a call see, bound to plain views and values."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shmcompute.chunking.aliasing import Access
from shmcompute.chunking.bound import (
    Attached,
    Bound,
    ChunkCall,
    Constant,
    Outline,
    OutputRow,
    Part,
    WholeArray,
)
from shmcompute.chunking.halo import PaddedPart
from shmcompute.chunking.numbers import Values
from shmcompute.chunking.schedule import Chunk, Chunks
from shmcompute.system.addresses import address
from shmcompute.typing import Array


@dataclass(frozen=True, eq=False)
class Arguments:
    """All arguments of a kernel; `length` is what they share along their split axes."""

    bound: tuple[Bound, ...]
    length: int
    values: Values = ()  # its numbers, unless a call passes others

    def at(self, call: ChunkCall) -> list[Any]:
        """What the kernel is called with for one chunk."""
        return [argument.at(call) for argument in self.bound]

    def sample(self, start: int = 0, stop: int = 0) -> list[Any]:
        """The same before anything runs, to look at its types."""
        return self.at(ChunkCall(start, stop, values=self.values))

    def samples(self, chunks: Sequence[Chunk]) -> list[list[Any]]:
        """Arguments of a few chunks that have all the types that those of any chunk have.

        The memory layout of a chunk, and with it its Numba type, changes only where its length is
        1 or the whole axis; that of a part with a margin says so itself.
        """
        parts = [arg for arg in self.bound if isinstance(arg, Part) and arg.margin]
        by_variant: dict[Hashable, Chunk] = {}
        for start, stop in chunks.ends if isinstance(chunks, Chunks) else chunks:
            length = stop - start
            own = length if length in (1, self.length) else "other"
            by_variant[own, *(part.variant(start, stop) for part in parts)] = start, stop
        return [self.sample(*edges) for edges in by_variant.values()] or [self.sample()]

    def accesses(self) -> list[Access]:
        """How chunks see the arrays among the arguments."""
        accesses = []
        for position, argument in enumerate(self.bound):
            if isinstance(argument, PaddedPart):
                accesses.append(Access(position, argument.view, None, False, padded=argument.axis))
            elif isinstance(argument, Part):
                of_part = argument.axis, argument.writes, argument.margin
                accesses.append(Access(position, argument.view, *of_part))
            elif isinstance(argument, WholeArray):
                accesses.append(Access(position, argument.view, None, argument.writes))
            elif isinstance(argument, Constant) and isinstance(argument.value, np.ndarray):
                accesses.append(Access(position, argument.value, None, writes=False))
        return accesses

    def written(self, call: ChunkCall) -> list[Array]:
        """The parts of arrays that are this chunk's own to write."""
        return [
            argument.at(call)
            for argument in self.bound
            if isinstance(argument, OutputRow) or (isinstance(argument, Part) and argument.writes)
        ]

    def outputs(self) -> list[Array]:
        """A row of each array that the call makes, of the shape and dtype of all."""
        return [argument.view for argument in self.bound if isinstance(argument, OutputRow)]

    def with_outputs(self, views: Iterator[Array]) -> Arguments:
        """The same, with the arrays that were made for a run."""
        bound = tuple(
            OutputRow(next(views)) if isinstance(argument, OutputRow) else argument
            for argument in self.bound
        )
        return replace(self, bound=bound)

    def views(self) -> list[Any]:
        """The arrays that it is attached to; their outlines, if it is detached."""
        return [argument.view for argument in self.bound if isinstance(argument, Attached)]

    def detached(self) -> Arguments:
        """The same without its arrays, and without its numbers."""
        return replace(self.attached(map(Outline.of, self.views())), values=())

    def attached(self, views: Iterator[Any]) -> Arguments:
        """The same with other arrays."""
        bound = tuple(
            replace(argument, view=next(views)) if isinstance(argument, Attached) else argument
            for argument in self.bound
        )
        return replace(self, bound=bound)


def bytes_of(links: Sequence[Arguments]) -> int:
    """Bytes of all that is split, each array counted once."""
    parts = [part for link in links for part in link.bound if isinstance(part, Part)]
    return sum({address(part.view): part.view.nbytes for part in parts}.values())

"""`Arguments`: what the chunks of a call see, bound to plain views and values."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

from shmcompute.chunking.aliasing import Access
from shmcompute.chunking.bound import (
    Attached,
    Block,
    Bound,
    ChunkCall,
    Constant,
    Cut,
    Outline,
    OutputRow,
    Part,
    WholeArray,
)
from shmcompute.chunking.grid import Grid
from shmcompute.chunking.halo import PaddedPart
from shmcompute.chunking.numbers import Values
from shmcompute.chunking.padded_block import PaddedBlock
from shmcompute.chunking.schedule import Chunk, Chunks
from shmcompute.system.addresses import address
from shmcompute.typing import Array


@dataclass(frozen=True, eq=False)
class Arguments:
    """All arguments of a kernel; `length` is what they share along their split axes."""

    bound: tuple[Bound, ...]
    length: int  # in two dimensions that along the first
    values: Values = ()  # its numbers, unless a call passes others
    width: int | None = None  # in two dimensions that along the second
    start: int = 0  # the first index

    @cached_property
    def classes(self) -> frozenset[type[Bound]]:
        """Of which classes they are: what many ask, before each looks for its own."""
        return frozenset(map(type, self.bound))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Elements along each of the call's axes."""
        return (self.length,) if self.width is None else (self.length, self.width)

    def at(self, call: ChunkCall) -> list[Any]:
        """What the kernel is called with for one chunk."""
        return [argument.at(call) for argument in self.bound]

    def sample(self, start: Any = 0, stop: Any = 0) -> list[Any]:
        """The same before anything runs, to look at its types."""
        if self.width is not None and not stop:
            start = stop = (0, 0)
        return self.at(ChunkCall(start, stop, values=self.values))

    def samples(self, chunks: Sequence[Chunk]) -> list[list[Any]]:
        """Arguments of a few chunks that have all the types that those of any chunk have.

        The memory layout of a chunk, and with it its Numba type, changes only where its length is
        1 or the whole axis; that of a part with a margin says so itself.
        """
        if self.width is not None:
            return [self.sample(*block) for block in self._blocks(chunks)] or [self.sample()]
        parts = [arg for arg in self.bound if isinstance(arg, Part) and arg.margin]
        by_variant: dict[Hashable, Chunk] = {}
        for start, stop in chunks.ends if isinstance(chunks, Chunks) else chunks:
            length = stop - start
            own = length if length in (1, self.length) else "other"
            by_variant[own, *(part.variant(start, stop) for part in parts)] = start, stop
        return [self.sample(*edges) for edges in by_variant.values()] or [self.sample()]

    def _blocks(self, chunks: Sequence[Any]) -> Iterable[Any]:
        """A few blocks, as `samples` has them."""
        if not isinstance(chunks, Grid):
            return {
                tuple(
                    self._variant(i, *pair) for i, pair in enumerate(zip(*chunk, strict=True))
                ): chunk
                for chunk in chunks
            }.values()
        typical = [
            {
                self._variant(along, *cut): cut
                for cut in (cuts.ends if isinstance(cuts, Chunks) else cuts)
            }
            for along, cuts in enumerate(chunks.axes())
        ]
        pairs = product(*(cuts.values() for cuts in typical))
        return [tuple(zip(*pair, strict=True)) for pair in pairs]

    def _variant(self, along: int, start: int, stop: int) -> Hashable:
        """Equal for blocks that differ in no type as far as one axis of the call goes."""
        length, whole = stop - start, self.lengths[along]
        blocks = [arg for arg in self.bound if isinstance(arg, Block) and any(arg.margins)]
        own = length if length in (1, whole) else "other"
        return own, *(block.variant(along, start, stop) for block in blocks)

    def accesses(self) -> list[Access]:
        """How chunks see the arrays among the arguments."""
        accesses = []
        for position, argument in enumerate(self.bound):
            if isinstance(argument, PaddedPart):
                accesses.append(Access(position, argument.view, None, False, padded=argument.axis))
            elif isinstance(argument, Part):
                of_part = argument.axis, argument.writes, argument.margin
                accesses.append(Access(position, argument.view, *of_part))
            elif isinstance(argument, PaddedBlock):
                accesses.append(Access(position, argument.view, None, writes=False))
            elif isinstance(argument, Block):
                of_block = argument.axes, argument.writes, argument.margins
                accesses.append(Access(position, argument.view, *of_block))
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
            if isinstance(argument, OutputRow) or (isinstance(argument, Cut) and argument.writes)
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
        return replace(self.attached(map(Outline.of, self.views())), values=(), start=0)

    def attached(self, views: Iterator[Any]) -> Arguments:
        """The same with other arrays."""
        bound = tuple(
            replace(argument, view=next(views)) if isinstance(argument, Attached) else argument
            for argument in self.bound
        )
        return replace(self, bound=bound)


def bytes_of(links: Sequence[Arguments]) -> int:
    """Bytes of all that is split, each array counted once."""
    parts = [part for link in links for part in link.bound if isinstance(part, Cut)]
    return sum({address(part.view): part.view.nbytes for part in parts}.values())

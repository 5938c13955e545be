"""`Arguments`: what the chunks of a call see, resolved to plain views and values.

A bound argument travels by pickle, its view as a handle: see `shmcompute.views`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shmcompute.partition import Chunk
from shmcompute.storage import Array

Number = bool | int | float | complex
Values = tuple[Number, ...]

VALUES = 64  # numbers of a call that may change; there is room for no more at the doorbell


@dataclass(frozen=True, eq=False)
class Part:
    """An array that is cut along `axis`."""

    view: Array
    axis: int
    writes: bool

    def at(self, start: int, stop: int, values: Values) -> Array:
        return self.view[(slice(None),) * self.axis + (slice(start, stop),)]


@dataclass(frozen=True, eq=False)
class Same:
    """A value that each chunk gets as it is."""

    value: Any

    def at(self, start: int, stop: int, values: Values) -> Any:
        return self.value


@dataclass(frozen=True, eq=False)
class Scalar:
    """A number that may change from call to call; which one of the plan's."""

    number: int

    def at(self, start: int, stop: int, values: Values) -> Number:
        return values[self.number]


@dataclass(frozen=True, eq=False)
class Start:
    """The chunk's start index."""

    def at(self, start: int, stop: int, values: Values) -> int:
        return start


Bound = Part | Same | Scalar | Start


@dataclass(frozen=True, eq=False)
class Arguments:
    """All arguments of a kernel, resolved; `length` is what they share along their split axes."""

    bound: tuple[Bound, ...]
    length: int
    values: Values = ()  # of the numbers, where a call does not bring others

    def at(self, chunk: Chunk, values: Values | None = None) -> list[Any]:
        """What the kernel is called with for one chunk."""
        numbers = self.values if values is None else values
        return [argument.at(*chunk, numbers) for argument in self.bound]

    def samples(self, chunks: Sequence[Chunk]) -> list[list[Any]]:
        """Arguments of chunks that between them have every type that any of these has.

        The memory layout of a chunk, and with it its Numba type, changes only where its length is
        1 or the whole axis.
        """
        kinds: dict[object, Chunk] = {}
        for start, stop in chunks:
            length = stop - start
            kinds.setdefault(length if length in (1, self.length) else "other", (start, stop))
        return [self.at(chunk) for chunk in kinds.values()] or [self.at((0, 0))]


def is_number(arg: Any) -> bool:
    """Whether an argument is a number that may change without making another plan."""
    kind = type(arg)
    return kind in (float, bool, complex) or (kind is int and -(2**63) <= arg < 2**63)


def bytes_of(links: Sequence[Arguments]) -> int:
    """Bytes of all that is split, each array counted once."""
    parts = [part for link in links for part in link.bound if isinstance(part, Part)]
    return sum({address(part.view): part.view.nbytes for part in parts}.values())


def address(view: Array) -> int:
    """Where its first element stands."""
    at: int = view.__array_interface__["data"][0]
    return at

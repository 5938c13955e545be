"""`Arguments`: what the chunks of a call see, bound to plain views and values.

`bind` resolves what the caller passed (arrays, markers, numbers, anything else) and checks the
arguments against each other. A bound argument is pickled with its view as a handle, not as data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shmcompute.arrays import SharedArray, refuse_subclass
from shmcompute.chunking.aliasing import Access, address, check_chunks, check_shared
from shmcompute.chunking.markers import Read, Split, Whole, offset
from shmcompute.chunking.schedule import Chunk
from shmcompute.storage import locate
from shmcompute.typing import Array

Number = bool | int | float | complex
Values = tuple[Number, ...]

VALUES = 64  # how many numbers of a call may change: as many as fit into a control block


@dataclass(frozen=True, eq=False)
class Part:
    """An array that is cut along `axis`."""

    view: Array
    axis: int
    writes: bool

    def at(self, start: int, stop: int, values: Values) -> Array:
        return self.view[(slice(None),) * self.axis + (slice(start, stop),)]


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that each chunk gets as it is."""

    value: Any

    def at(self, start: int, stop: int, values: Values) -> Any:
        return self.value


@dataclass(frozen=True, eq=False)
class Scalar:
    """A number that may change from call to call."""

    number: int  # its index among those of the call

    def at(self, start: int, stop: int, values: Values) -> Number:
        return values[self.number]


@dataclass(frozen=True, eq=False)
class ChunkStart:
    """The chunk's start index."""

    def at(self, start: int, stop: int, values: Values) -> int:
        return start


Bound = Part | Constant | Scalar | ChunkStart


@dataclass(frozen=True, eq=False)
class Arguments:
    """All arguments of a kernel; `length` is what they share along their split axes."""

    bound: tuple[Bound, ...]
    length: int
    values: Values = ()  # its numbers, unless a call passes others

    def at(self, chunk: Chunk, values: Values | None = None) -> list[Any]:
        """What the kernel is called with for one chunk."""
        numbers = self.values if values is None else values
        return [argument.at(*chunk, numbers) for argument in self.bound]

    def samples(self, chunks: Sequence[Chunk]) -> list[list[Any]]:
        """Arguments of a few chunks that have all the types that those of any chunk have.

        The memory layout of a chunk, and with it its Numba type, changes only where its length is
        1 or the whole axis.
        """
        by_length = {}
        for start, stop in chunks:
            length = stop - start
            by_length[length if length in (1, self.length) else "other"] = start, stop
        return [self.at(chunk) for chunk in by_length.values()] or [self.at((0, 0))]

    def accesses(self) -> list[Access]:
        """How chunks see the arrays among the arguments."""
        accesses = []
        for position, argument in enumerate(self.bound):
            if isinstance(argument, Part):
                accesses.append(Access(position, argument.view, argument.axis, argument.writes))
            elif isinstance(argument, Constant) and isinstance(argument.value, np.ndarray):
                accesses.append(Access(position, argument.value, None, writes=False))
        return accesses


def bytes_of(links: Sequence[Arguments]) -> int:
    """Bytes of all that is split, each array counted once."""
    parts = [part for link in links for part in link.bound if isinstance(part, Part)]
    return sum({address(part.view): part.view.nbytes for part in parts}.values())


def is_number(arg: Any) -> bool:
    """Whether an argument is a number that may change without another plan."""
    kind = type(arg)
    return kind in (float, bool, complex) or (kind is int and -(2**63) <= arg < 2**63)


def bind(args: Sequence[Any], axis: int, *, shared: bool, earlier: Values = ()) -> Arguments:
    """Resolve and check the arguments of a call, before anything runs.

    Parameters
    ----------
    args : sequence
        Arrays, markers, numbers and anything else.
    axis : int
        Split axis of arguments that do not name their own.
    shared : bool
        Whether other processes will see the arrays, so that a plain ndarray won't do.
    earlier : tuple of numbers
        The numbers of earlier kernels of a chain, which stand before this kernel's.

    Raises
    ------
    TypeError
        For a plain ndarray that must be shared, or a marker around something that is no array.
    ValueError
        For nothing to split, unlike lengths, an axis out of range, read-only targets, and arguments
        that overlap what chunks write in another.
    """
    values = [*earlier]
    bound = tuple(_bound(position, arg, axis, shared, values) for position, arg in enumerate(args))
    length = _length(bound)
    arguments = Arguments(bound, length, tuple(values))
    if len(accesses := arguments.accesses()) > 1:
        check_shared(accesses)
    return arguments


def _length(bound: Sequence[Bound]) -> int:
    """What the split arguments share along their split axes."""
    parts = [(position, arg) for position, arg in enumerate(bound) if isinstance(arg, Part)]
    if not parts:
        raise ValueError(
            "nothing to split: pass at least one SharedArray, or a view of one, that is not whole()"
        )
    lengths = {arg.view.shape[arg.axis] for _, arg in parts}
    if len(lengths) > 1:
        listed = ", ".join(
            f"argument {i} has {arg.view.shape[arg.axis]} (shape {arg.view.shape}, axis {arg.axis})"
            for i, arg in parts
        )
        raise ValueError(f"split arguments must have one length along their split axis: {listed}")
    return int(lengths.pop())


def _bound(position: int, arg: Any, axis: int, shared: bool, values: list[Number]) -> Bound:
    if is_number(arg) and len(values) < VALUES:
        values.append(arg)
        return Scalar(len(values) - 1)
    if arg is offset:
        return ChunkStart()
    if isinstance(arg, Whole):
        view = _array(position, arg.value, shared=False)
        if shared and locate(view) is None:
            view = np.array(
                view, order="A", subok=True
            )  # as it will arrive, so its type is the same everywhere
        return Constant(_read_only(view))
    if isinstance(arg, (Split, Read)):
        own = axis if arg.axis is None else arg.axis
        return _part(position, arg.value, own, shared, writes=isinstance(arg, Split))
    if isinstance(arg, (SharedArray, np.ndarray)):
        return _part(position, arg, axis, shared, writes=True)
    return Constant(arg)


def _part(position: int, value: Any, axis: int, shared: bool, *, writes: bool) -> Part:
    view = _array(position, value, shared)
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"axis: expected a whole number, got {axis!r}")
    if not -view.ndim <= axis < view.ndim:
        raise ValueError(
            f"axis {axis} is out of range for argument {position} of shape {view.shape}"
        )
    axis = int(axis) % view.ndim
    if not writes:
        return Part(_read_only(view), axis, writes=False)
    if not view.flags.writeable:
        raise ValueError(
            f"argument {position} (shape {view.shape}) is read-only, so it can't be split for "
            "writing; pass sc.read(x), or open its file with mode='r+'"
        )
    if not view.flags.forc:
        check_chunks(Access(position, view, axis, writes=True))
    return Part(view, axis, writes=True)


def _array(position: int, value: Any, shared: bool) -> Array:
    if isinstance(value, SharedArray):
        return value.array
    if not isinstance(value, np.ndarray):
        raise TypeError(
            f"argument {position}: expected a SharedArray or an ndarray inside split(), read() or "
            f"whole(), got {type(value).__name__}"
        )
    refuse_subclass(f"argument {position}", value)
    if shared and value.size and locate(value) is None:
        raise TypeError(
            f"argument {position} is a plain ndarray of shape {value.shape}, which worker "
            "processes can't write in place: wrap it, sc.SharedArray(x); or pass sc.whole(x) to "
            'send each worker a read-only copy; or choose backend="threads"'
        )
    # Records keep their attributes. A memmap would be pickled with the file behind it.
    return value if type(value) is np.recarray else value.view(np.ndarray)


def _read_only(view: Array) -> Array:
    view = view.view()
    view.flags.writeable = False
    return view

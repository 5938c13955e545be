"""Bound arguments: what a call's kernel is given for each chunk, a class for each way to see it.

Those that have a `view` can be *detached* from it: an `Outline` stands there then, until the
argument is attached to another array of the same kind. What is sent to workers is detached; where
the arrays are, they are told with each call.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from shmcompute.chunking.generators import Rng
from shmcompute.chunking.numbers import Number, Values
from shmcompute.system.unpatched import threading
from shmcompute.typing import Array

LINE = 128  # bytes; rows of scratch that workers write side by side share no cache line


# Who runs all of a call by itself: several threads may do so, while the workers run another one.
NO_WORKER = -1


class ChunkCall(NamedTuple):
    """One call of a kernel: for which chunk, by which worker, with which numbers."""

    start: Any  # an index; in two dimensions a pair of them
    stop: Any
    number: int = 0  # of the chunk
    worker: int = 0  # which of those that run at the same time, or `NO_WORKER`
    values: Values = ()


@dataclass(frozen=True)
class Outline:
    """What arrays have in common that one argument may be attached to."""

    kind: type[Any]  # ndarray or recarray
    dtype: np.dtype[Any]
    ndim: int
    writeable: bool

    @staticmethod
    def of(view: Array) -> Outline:
        return Outline(type(view), view.dtype, view.ndim, view.flags.writeable)

    def over(
        self, memory: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
    ) -> Array:
        """The array of that shape in a buffer."""
        if 0 in shape:  # its strides may lead anywhere: there is nothing to follow them
            view: Array = np.empty(shape, self.dtype)
        else:
            # ndarray() checks that shape and strides stay inside `memory`.
            view = np.ndarray(shape, self.dtype, memory, offset, strides)
        view.flags.writeable = self.writeable
        return view if self.kind is np.ndarray else view.view(self.kind)


@dataclass(frozen=True, eq=False)
class Part:
    """An array that is cut along `axis`."""

    view: Array
    axis: int
    writes: bool
    margin: int = (
        0  # how many elements more than its own a chunk sees, the first of them at `start`
    )
    reads: bool = field(default=True, kw_only=True)  # whether what stood there before matters

    @property
    def length(self) -> int:
        """How many elements of the call it is for."""
        return int(self.view.shape[self.axis]) - self.margin

    def at(self, call: ChunkCall) -> Array:
        return self.cut(call.start, call.stop + self.margin)

    def cut(self, start: int, stop: int) -> Array:
        """Some of it, along the axis."""
        return self.view[(slice(None),) * self.axis + (slice(start, stop),)]

    def variant(self, start: int, stop: int) -> Hashable:
        """Equal for chunks that see arrays of one memory layout, and so of one Numba type.

        It changes only where the length is 1 or that of the whole axis.
        """
        width = stop - start + self.margin
        return width if width in (1, self.view.shape[self.axis]) else "other"


@dataclass(frozen=True, eq=False)
class Block:
    """An array that is cut along both axes of a call in two dimensions, or along one of them."""

    view: Array
    axes: tuple[int | None, int | None]  # its own, in the call's order; None: all of it is seen
    writes: bool
    margins: tuple[int, int] = (0, 0)  # as of a `Part`, along each
    reads: bool = field(default=True, kw_only=True)  # as of a `Part`

    @property
    def lengths(self) -> tuple[int | None, int | None]:
        """How many elements of the call it is for, along each of the call's axes."""
        first, second = (
            None if axis is None else int(self.view.shape[axis]) - margin
            for axis, margin in zip(self.axes, self.margins, strict=True)
        )
        return first, second

    def at(self, call: ChunkCall) -> Array:
        return self.cut(call.start, call.stop)

    def cut(self, start: Any, stop: Any) -> Array:
        """What a block sees that goes from one pair of indices to another."""
        where = [slice(None)] * self.view.ndim
        for axis, first, last, margin in zip(self.axes, start, stop, self.margins, strict=True):
            if axis is not None:
                where[axis] = slice(first, last + margin)
        return self.view[tuple(where)]

    def variant(self, along: int, start: int, stop: int) -> Hashable:
        """As of a `Part`, for blocks that reach so far along one of the call's axes."""
        axis, width = self.axes[along], stop - start + self.margins[along]
        if axis is None:
            return None
        return width if width in (1, self.view.shape[axis]) else "other"


@dataclass(frozen=True, eq=False)
class Constant:
    """A value that each chunk gets as it is; an array is only read, and sent as a copy."""

    value: Any

    def at(self, call: ChunkCall) -> Any:
        return self.value


@dataclass(frozen=True, eq=False)
class WholeArray:
    """An array of which each chunk sees all."""

    view: Array
    writes: bool

    def at(self, call: ChunkCall) -> Array:
        return self.view


@dataclass(frozen=True, eq=False)
class Scalar:
    """A number that may change from call to call."""

    index: int  # among those of the call

    def at(self, call: ChunkCall) -> Number:
        return call.values[self.index]


@dataclass(frozen=True, eq=False)
class ChunkStart:
    """The chunk's start index; in two dimensions, those of its row and its column."""

    base: int | None = None  # which of the call's numbers is to be added, if one is

    def at(self, call: ChunkCall) -> Any:
        return call.start if self.base is None else call.start + call.values[self.base]


@dataclass(frozen=True, eq=False)
class ChunkStop:
    """The index behind the chunk's last."""

    def at(self, call: ChunkCall) -> Any:
        return call.stop


@dataclass(frozen=True, eq=False)
class ChunkNumber:
    """Which chunk it is, from 0."""

    def at(self, call: ChunkCall) -> int:
        return call.number


@dataclass(frozen=True, eq=False)
class SweepNumber:
    """Which sweep it is, from 0. Many sweeps are no chunks, so theirs is the call's number then."""

    def at(self, call: ChunkCall) -> int:
        return call.number


@dataclass(frozen=True, eq=False)
class ChunkGenerator:
    """A random generator of the chunk's own, made anew for each call."""

    rng: Rng
    link: int  # of a chain, in which each is to draw other numbers
    sweep: int | None = None  # which of the call's numbers is the sweep's, if it has sweeps

    def at(self, call: ChunkCall) -> np.random.Generator:
        more: tuple[Any, ...] = (self.link,) if self.link else ()
        # The first sweep draws what a call by itself does.
        if self.sweep is not None and (number := call.values[self.sweep]):
            more = self.link, number
        return self.rng.generator(call.number, *more)


@dataclass(frozen=True, eq=False)
class ScratchRow:
    """Memory of the worker's own, which it keeps from chunk to chunk."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    workers: int  # how many may run at the same time

    @cached_property
    def rows(self) -> Array:
        """The memory of all workers, a row each. What nobody touches takes no memory."""
        return self._rows(self.workers)

    def _rows(self, count: int) -> Array:
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        return np.zeros((count, -(-max(1, size) // LINE) * LINE), np.uint8)

    @cached_property
    def _of_thread(self) -> Any:
        """The row of each thread that is no worker."""
        return threading.local()

    def at(self, call: ChunkCall) -> Array:
        if call.worker != NO_WORKER:
            return np.ndarray(self.shape, self.dtype, self.rows[call.worker])
        row = getattr(self._of_thread, "row", None)
        if row is None:
            row = self._of_thread.row = self._rows(1)[0]
        return np.ndarray(self.shape, self.dtype, row)

    def __getstate__(self) -> dict[str, Any]:
        return {"shape": self.shape, "dtype": self.dtype, "workers": self.workers}


@dataclass(frozen=True, eq=False)
class OutputRow:
    """The chunk's own row of an array that the call makes."""

    view: Array  # (chunks, *shape); before the call runs there is one row, for its type alone

    def at(self, call: ChunkCall) -> Array:
        return self.view[min(call.number, len(self.view) - 1), ...]


Bound = (
    Part
    | Block
    | Constant
    | WholeArray
    | Scalar
    | ChunkStart
    | ChunkStop
    | ChunkNumber
    | SweepNumber
    | ChunkGenerator
    | ScratchRow
    | OutputRow
)
Attached = Part | Block | WholeArray | OutputRow  # those that have a view
Cut = Part | Block  # those of which a chunk sees a part

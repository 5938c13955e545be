"""How a kernel sees each of its arguments: `split`, `read`, `whole`, `offset`, or as it is.

A marker (`split(x)`) says what the caller wants; a `Bound` argument is the marker resolved to a
plain ndarray view with its axis, checked against all the others. A bound argument travels by
pickle, its view as a handle: see `shmcompute.views`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from shmcompute.array import SharedArray
from shmcompute.partition import Chunk
from shmcompute.storage import Array, locate

Number = bool | int | float | complex
Values = tuple[Number, ...]

VALUES = 64  # numbers of a call that may change; there is room for no more at the doorbell
WORK = 100_000  # steps that NumPy may take to tell whether two views overlap: milliseconds


@dataclass(frozen=True, eq=False)
class Split:
    """Each chunk sees its own part, and may write it."""

    value: Any
    axis: int | None = None


@dataclass(frozen=True, eq=False)
class Read:
    """Each chunk sees its own part, read-only."""

    value: Any
    axis: int | None = None


@dataclass(frozen=True, eq=False)
class Whole:
    """Each chunk sees all of it, read-only."""

    value: Any


class _Offset:
    """The chunk's start index along the split axis."""

    def __repr__(self) -> str:
        return "shmcompute.offset"


offset: Final = _Offset()


def split(x: Any, axis: int | None = None) -> Split:
    """Split `x` along `axis` (that of the call by default); its chunks are written in place.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def double(columns):
    ...     columns *= 2
    >>> with sc.SharedArray(np.ones((2, 3))) as arr:
    ...     sc.parallel_apply(double, sc.split(arr, axis=1))
    ...     print(arr.array.sum())
    12.0
    """
    return Split(x, axis)


def read(x: Any, axis: int | None = None) -> Read:
    """Split `x` along `axis`, read-only: a Numba kernel that writes it does not compile.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.zeros(3)) as out, sc.SharedArray(np.arange(3.0)) as x:
    ...     sc.parallel_apply(np.square, out, sc.read(x))
    ...     print(out.array)
    [0. 1. 4.]
    """
    return Read(x, axis)


def whole(x: Any) -> Whole:
    """Give every chunk all of `x`, read-only: a table, weights, a reference frame.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def subtract(row, table):
    ...     row -= table
    >>> with sc.SharedArray(np.ones((4, 2))) as arr, sc.SharedArray(np.ones(2)) as table:
    ...     sc.parallel_apply(subtract, arr, sc.whole(table))
    ...     print(arr.array.sum())
    0.0
    """
    return Whole(x)


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


def bind(args: Sequence[Any], axis: int, *, shared: bool, before: Values = ()) -> Arguments:
    """Resolve and check the arguments of a call; nothing has run when this raises.

    Parameters
    ----------
    args : sequence
        Arrays, markers, and everything else.
    axis : int
        Split axis of those that do not name their own.
    shared : bool
        Whether other processes will see the arrays, so that a plain ndarray won't do.
    before : tuple of numbers
        Those of kernels that come before this one in a chain.

    Raises
    ------
    TypeError
        For a plain ndarray where it must be shared, or a marker around what is no array.
    ValueError
        For nothing to split, unlike lengths, an axis out of range, overlapping or read-only
        targets.
    """
    values = [*before]
    bound = tuple(_bound(position, arg, axis, shared, values) for position, arg in enumerate(args))
    parts = [(i, arg) for i, arg in enumerate(bound) if isinstance(arg, Part)]
    if not parts:
        raise ValueError(
            "nothing to split: pass at least one SharedArray, or a view of one, that is not whole()"
        )
    lengths = {arg.view.shape[arg.axis] for _, arg in parts}
    if len(lengths) > 1:
        told = ", ".join(
            f"argument {i} has {arg.view.shape[arg.axis]} (shape {arg.view.shape}, axis {arg.axis})"
            for i, arg in parts
        )
        raise ValueError(f"split arguments must have one length along their split axis: {told}")
    _check_overlap([(i, arg) for i, arg in parts if arg.writes])
    return Arguments(bound, lengths.pop(), tuple(values))


def is_number(arg: Any) -> bool:
    """Whether an argument is a number that may change without making another plan."""
    kind = type(arg)
    return kind in (float, bool, complex) or (kind is int and -(2**63) <= arg < 2**63)


def _bound(position: int, arg: Any, axis: int, shared: bool, values: list[Number]) -> Bound:
    if is_number(arg) and len(values) < VALUES:
        values.append(arg)
        return Scalar(len(values) - 1)
    if arg is offset:
        return Start()
    if isinstance(arg, Whole):
        view = _array(position, arg.value, shared=False)
        if shared and locate(view) is None:
            view = np.array(view, order="A")  # as it will arrive: one content and type everywhere
        return Same(_read_only(view))
    if isinstance(arg, (Split, Read)):
        own = axis if arg.axis is None else arg.axis
        return _part(position, arg.value, own, shared, writes=isinstance(arg, Split))
    if isinstance(arg, (SharedArray, np.ndarray)):
        return _part(position, arg, axis, shared, writes=True)
    return Same(arg)


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
    _check_chunks(position, view, axis)
    return Part(view, axis, writes=True)


def _array(position: int, value: Any, shared: bool) -> Array:
    if isinstance(value, SharedArray):
        return value.array
    if not isinstance(value, np.ndarray):
        raise TypeError(
            f"argument {position}: expected a SharedArray or an ndarray inside split(), read() or "
            f"whole(), got {type(value).__name__}"
        )
    if shared and value.size and locate(value) is None:
        raise TypeError(
            f"argument {position} is a plain ndarray of shape {value.shape}, which worker "
            "processes can't write in place: wrap it, sc.SharedArray(x); or pass sc.whole(x) to "
            'send each worker a read-only copy; or choose backend="threads"'
        )
    return value.view(np.ndarray)


def _read_only(view: Array) -> Array:
    view = view.view()
    view.flags.writeable = False
    return view


def _check_chunks(position: int, view: Array, axis: int) -> None:
    """A view that repeats its own memory along the axis would be written by two workers at once."""
    if view.shape[axis] < 2 or _distinct(view):
        return
    if overlap(*np.split(view, [1], axis)):
        raise ValueError(
            f"argument {position} (shape {view.shape}, strides {view.strides}) repeats its memory "
            f"along axis {axis}: two chunks would write the same elements"
        )


def _distinct(view: Array) -> bool:
    """Whether each stride steps over all that the smaller ones reach, as in any usual view."""
    reach = view.itemsize
    for stride, size in sorted(
        (abs(stride), size) for stride, size in zip(view.strides, view.shape, strict=True)
    ):
        if size > 1 and stride < reach:
            return False
        reach += (size - 1) * stride
    return True


def _check_overlap(parts: Sequence[tuple[int, Part]]) -> None:
    for (i, one), (j, other) in itertools.combinations(parts, 2):
        if not _same(one, other) and overlap(one.view, other.view):
            raise ValueError(
                f"arguments {i} (shape {one.view.shape}) and {j} (shape {other.view.shape}) are "
                "both written and overlap in memory; pass one of them as sc.read(x), or a copy"
            )


def check_chain(links: Sequence[Arguments]) -> None:
    """Refuse chains in which a link would see, or undo, what another did to other chunks.

    Raises
    ------
    ValueError
        For unlike lengths, and for an array that one link writes and another one sees otherwise
        than in the same parts.
    """
    if len({arguments.length for arguments in links}) > 1:
        told = ", ".join(str(arguments.length) for arguments in links)
        raise ValueError(f"the links of a chain must split one length, got {told}")
    for (i, one), (j, other) in itertools.permutations(enumerate(links), 2):
        for written, seen in itertools.product(one.bound, other.bound):
            if isinstance(written, Part) and written.writes and _crosses(written, seen):
                raise ValueError(
                    f"link {i} of the chain writes an array (shape {written.view.shape}) that link "
                    f"{j} sees in other parts: a chunk goes through all links before the next one, "
                    "so it would see some of it written and some not; make it two calls"
                )


def _crosses(written: Part, seen: Bound) -> bool:
    """Whether a chunk of what is seen may be in another chunk of what is written."""
    if isinstance(seen, Part):
        return not _same(written, seen) and overlap(written.view, seen.view)
    return (
        isinstance(seen, Same)
        and isinstance(seen.value, np.ndarray)
        and (overlap(written.view, seen.value))
    )


def crossing(arguments: Arguments) -> tuple[int, int] | None:
    """Two arguments, of which one is written and the other sees that memory in other chunks."""
    for (i, written), (j, seen) in itertools.permutations(enumerate(arguments.bound), 2):
        if isinstance(written, Part) and written.writes and _crosses(written, seen):
            return i, j
    return None


def bytes_of(links: Sequence[Arguments]) -> int:
    """Bytes of all that is split, each array counted once."""
    parts = [part for link in links for part in link.bound if isinstance(part, Part)]
    return sum({_data(part.view): part.view.nbytes for part in parts}.values())


def _data(view: Array) -> int:
    address: int = view.__array_interface__["data"][0]
    return address


def _same(one: Part, other: Part) -> bool:
    """Whether two arguments are one, cut alike."""
    return (
        _data(one.view) == _data(other.view)
        and one.view.shape == other.view.shape
        and one.view.strides == other.view.strides
        and one.view.dtype == other.view.dtype
        and one.axis == other.axis
    )


def overlap(one: Array, other: Array) -> bool:
    """Whether two views share an element; where that is too hard to tell, whether they could."""
    try:
        return bool(np.shares_memory(one, other, max_work=WORK))  # type: ignore[arg-type]  # any number
    except np.exceptions.TooHardError:
        return bool(np.may_share_memory(one, other))

"""How a kernel sees each of its arguments: `split`, `read`, `whole`, `offset`, or as it is.

A marker (`split(x)`) says what the caller wants; `bind` resolves it to a plain view with its axis,
checked against all the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from shmcompute.arguments import (
    VALUES,
    Arguments,
    Bound,
    Number,
    Part,
    Same,
    Scalar,
    Start,
    Values,
    is_number,
)
from shmcompute.array import SharedArray
from shmcompute.overlap import check_chunks, check_overlap
from shmcompute.storage import Array, locate


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
    check_overlap([(i, arg) for i, arg in parts if arg.writes])
    return Arguments(bound, lengths.pop(), tuple(values))


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
    check_chunks(position, view, axis)
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

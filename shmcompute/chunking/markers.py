"""Markers: how a kernel is to see one argument, as the caller says it.

An unmarked argument is split if it is an array, and passed as it is if not. `arguments.bind`
resolves markers to plain views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


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


MARKERS = (Split, Read, Whole)  # what arguments may be wrapped in


class _Offset:
    """The chunk's start index along the split axis."""

    def __repr__(self) -> str:
        return "shmcompute.offset"

    def __reduce__(self) -> str:
        return "offset"  # there is but one, also where it is copied or sent to


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

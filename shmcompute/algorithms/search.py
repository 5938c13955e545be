"""`numpy.searchsorted`, `nonzero`, `flatnonzero` and `compress` on all cores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.algorithms.parts import edges, plain_array, run_parts, unwrapped, workers
from shmcompute.typing import Array

SIZE = 1 << 17  # elements: with fewer NumPy is as quick
SEARCHES = 1 << 13  # these take longer
PLAIN = "?bBhHiIlLqQfdFDMm"  # dtypes that NumPy reads without the GIL


def searchsorted(a: Any, v: Any, side: Any = "left", sorter: Any = None) -> Any:
    """`numpy.searchsorted`."""
    a, v, sorter = unwrapped(a), unwrapped(v), unwrapped(sorter)
    table, values = plain_array(a), plain_array(v)
    if table is None or values is None or sorter is not None or not _searchable(table, values):
        return np.searchsorted(a, v, side, sorter)
    try:
        kind = np.result_type(table, values)
    except TypeError:  # numbers and dates, of which NumPy makes what it makes
        return np.searchsorted(a, v, side)
    once = np.ascontiguousarray(table, kind)  # NumPy would convert it for each part
    flat, out = values.reshape(-1), np.empty(values.size, np.intp)
    bounds = edges(flat.size, 4 * workers())

    def part(number: int) -> None:
        place = slice(bounds[number], bounds[number + 1])
        out[place] = np.searchsorted(once, flat[place].astype(kind, copy=False), side)

    run_parts(part, len(bounds) - 1)
    return out.reshape(values.shape)


def _searchable(table: Array, values: Array) -> bool:
    many = values.size >= SEARCHES and table.ndim == 1
    return many and table.dtype.char in PLAIN and values.dtype.char in PLAIN


def nonzero(a: Any) -> tuple[Array, ...]:
    """`numpy.nonzero`."""
    a = unwrapped(a)
    array = plain_array(a)
    if array is None or not _long(array):
        return tuple(np.nonzero(a))
    bounds = edges(len(array), workers())
    found: list[tuple[Array, ...]] = [()] * (len(bounds) - 1)

    def part(number: int) -> None:
        rows = np.nonzero(array[bounds[number] : bounds[number + 1]])
        rows[0][...] += bounds[number]
        found[number] = rows

    run_parts(part, len(found))
    return tuple(map(_joined, zip(*found, strict=True)))


def flatnonzero(a: Any) -> Any:
    """`numpy.flatnonzero`."""
    a = unwrapped(a)
    array = plain_array(a)
    return np.flatnonzero(a) if array is None else nonzero(array.ravel())[0]


def compress(condition: Any, a: Any, axis: Any = None, out: Any = None) -> Any:
    """`numpy.compress`."""
    condition, a, out = unwrapped(condition), unwrapped(a), unwrapped(out)
    array, kept = plain_array(a), plain_array(condition)
    if array is None or kept is None or out is not None or not _compressible(array, kept, axis):
        return np.compress(condition, a, axis, out)
    bounds = edges(kept.size, workers())
    found = [array[:0]] * (len(bounds) - 1)

    def part(number: int) -> None:
        place = slice(bounds[number], bounds[number + 1])
        found[number] = array[: kept.size][place][kept[place]]

    run_parts(part, len(found))
    return _joined(found)


def _compressible(array: Array, kept: Array, axis: Any) -> bool:
    along = axis is None or (type(axis) is int and axis in (0, -1))
    one = array.ndim == kept.ndim == 1 and kept.dtype == bool and kept.size <= array.size
    return along and one and _long(array)


def _long(array: Array) -> bool:
    return array.size >= SIZE and array.dtype.char in PLAIN and len(array) > 1


def _joined(parts: Any) -> Array:
    """Parts of one array, copied to their places at once."""
    sizes = [0, *np.cumsum([part.size for part in parts]).tolist()]
    whole = np.empty(sizes[-1], parts[0].dtype)

    def copy(number: int) -> None:
        whole[sizes[number] : sizes[number + 1]] = parts[number]

    run_parts(copy, len(parts))
    return whole


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.searchsorted: searchsorted,
    np.nonzero: nonzero,
    np.flatnonzero: flatnonzero,
    np.compress: compress,
}

"""`numpy.unique` on all cores: sorted, then what differs from the element before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from shmcompute.algorithms.parts import edges, plain_array, run_parts, unwrapped, workers
from shmcompute.algorithms.search import compress, flatnonzero
from shmcompute.algorithms.sort import parallel_argsort, sort
from shmcompute.typing import Array

SIZE = 1 << 17  # elements: fewer NumPy sorts as quickly


def unique(
    ar: Any,
    return_index: Any = False,
    return_inverse: Any = False,
    return_counts: Any = False,
    axis: Any = None,
    *,
    equal_nan: Any = True,
    **others: Any,
) -> Any:
    """`numpy.unique`."""
    ar = unwrapped(ar)
    array = plain_array(ar)
    flags = return_index, return_inverse, return_counts
    found = None
    if array is not None and axis is None and not others and _sortable(array):
        found = _unique(array, *flags)
    if found is None:
        return np.unique(ar, *flags, axis, equal_nan=equal_nan, **others)
    return found if len(found) > 1 else found[0]


def _sortable(array: Array) -> bool:
    return array.size >= SIZE and array.dtype.char in "bBhHiIlLqQfd" and array.dtype.isnative


def _unique(array: Array, index: Any, inverse: Any, counts: Any) -> tuple[Array, ...] | None:
    """What is asked for; None where NumPy is to choose which of several equal elements it keeps."""
    flat = array.ravel()
    order = parallel_argsort(flat, kind="stable") if index or inverse else None
    ordered = sort(flat) if order is None else _take(flat, order)
    if ordered.dtype.kind == "f" and not _one_of_each(ordered):
        return None
    first = _first_of_each(ordered)
    results = [compress(first, ordered)]
    if order is not None and index:
        results.append(compress(first, order))
    if order is not None and inverse:
        results.append(_inverse(first, order).reshape(array.shape))
    if counts:
        results.append(np.diff(flatnonzero(first), append=flat.size))
    return tuple(results)


def _one_of_each(ordered: Array) -> bool:
    """Whether sorted floats that are equal are the same, so no NaN, nor zeros of both signs."""
    zeros = ordered[np.searchsorted(ordered, 0, "left") : np.searchsorted(ordered, 0, "right")]
    return not np.isnan(ordered[-1]) and len(set(np.signbit(zeros).tolist())) < 2


def _take(flat: Array, order: Array) -> Array:
    out = np.empty_like(flat)
    bounds = edges(flat.size, workers())

    def part(number: int) -> None:
        place = slice(bounds[number], bounds[number + 1])
        out[place] = flat[order[place]]

    run_parts(part, len(bounds) - 1)
    return out


def _first_of_each(ordered: Array) -> Array:
    """Which elements differ from the one before."""
    first = np.empty(ordered.size, bool)
    first[0] = True
    bounds = edges(ordered.size - 1, workers())

    def part(number: int) -> None:
        start, stop = bounds[number], bounds[number + 1]
        np.not_equal(
            ordered[start + 1 : stop + 1], ordered[start:stop], out=first[start + 1 : stop + 1]
        )

    run_parts(part, len(bounds) - 1)
    return first


def _inverse(first: Array, order: Array) -> Array:
    """Where in the result each element is."""
    inverse = np.empty(order.size, np.intp)
    bounds = edges(order.size, workers())
    before = np.cumsum([0, *(np.count_nonzero(first[i:j]) for i, j in pairwise(bounds))])

    def part(number: int) -> None:
        place = slice(bounds[number], bounds[number + 1])
        inverse[order[place]] = np.cumsum(first[place]) + (before[number] - 1)

    run_parts(part, len(bounds) - 1)
    return inverse


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {np.unique: unique}

"""`numpy.histogram` and `numpy.bincount` on all cores.

Counts are NumPy's exactly. Weights are added up in parts, and these in order. What a part is
depends on the number of elements alone: the sums are the same bits for any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.algorithms.counting import add_up, count_even, count_even_blocks, count_until
from shmcompute.algorithms.parts import edges, plain_array, run_parts, unwrapped, workers
from shmcompute.typing import Array

SIZE = 1 << 16  # elements: fewer NumPy counts as quickly
BLOCK = 1 << 16  # elements whose weights NumPy's histogram adds up at once
PARTS = 16  # of weights, for bincount
COUNTED = 1 << 14  # elements that bincount looks at and then counts, while they are in the cache
DOUBTFUL = 2.0**-12  # of the width of a bin at either edge: more, and many blocks go twice
MOST = 1 << 30  # bins whose numbers are of 32 bits
EXACT = 1 << 53  # integers up to here are floats


def histogram(
    a: Any,
    bins: Any = 10,
    range: Any = None,  # noqa: A002  # as NumPy calls it
    density: Any = None,
    weights: Any = None,
) -> tuple[Array, Array]:
    """`numpy.histogram`."""
    a, bins, weights = unwrapped(a), unwrapped(bins), unwrapped(weights)
    array = plain_array(a)
    if array is None or array.size < SIZE or array.dtype.kind not in "iuf" or not _simple(bins):
        return np.histogram(a, bins, range, density, weights)
    if weights is None:
        counts, found = _counted(array.ravel(), bins, range)
    else:
        weighed = plain_array(weights)
        if weighed is None or weighed.shape != array.shape or np.ndim(bins) != 0:
            return np.histogram(a, bins, range, density, weights)
        counts, found = _weighed(array.ravel(), bins, range, weighed.ravel())
    if density:
        return counts / np.array(np.diff(found), float) / counts.sum(), found
    return counts, found


def _simple(bins: Any) -> bool:
    """Whether these are a number of bins, or edges, that NumPy takes."""
    return isinstance(bins, (int, np.integer)) or (not isinstance(bins, str) and np.ndim(bins) == 1)


def _counted(array: Array, bins: Any, between: Any) -> tuple[Array, Array]:
    found, between = _edges(array, bins, between)
    bounds = edges(array.size, 1 if found.size > array.size // 4 else workers())
    counts = np.zeros((len(bounds) - 1, max(0, found.size - 1)), np.intp)
    if np.ndim(bins) == 0 and _jittable(array, found):
        _count_evenly(array, found, bounds, counts)
    else:

        def part(number: int) -> None:
            elements = array[bounds[number] : bounds[number + 1]]
            counts[number] = np.histogram(elements, bins, between)[0]

        run_parts(part, len(counts))
    return counts.sum(0), found


def _count_evenly(array: Array, found: Array, bounds: list[int], counts: Array) -> None:
    width, bins = found[-1] - found[0], found.dtype.type(found.size - 1)
    margin = _margin(found)

    def part(start: int, stop: int, own: Array) -> None:
        if margin < DOUBTFUL:
            count_even_blocks(array[start:stop], found, width, bins, margin, own)
        else:
            count_even(array[start:stop], found, width, bins, own)

    part(0, 0, counts[0])  # compiled in the thread that called
    run_parts(lambda number: part(bounds[number], bounds[number + 1], counts[number]), len(counts))


def _margin(found: Array) -> float:
    """How far from an edge, in widths of a bin, the place of a number is beyond doubt.

    Places are computed in double precision, with an error of some units in the last place of the
    number of bins. NumPy's edges are of the elements' type, and their errors those of the largest.
    """
    bins, largest = found.size - 1, float(np.abs(found[[0, -1]]).max())
    with np.errstate(all="ignore"):
        width = float(found[-1] - found[0]) / bins
        last_places = bins * 2.0**-52 + float(np.finfo(found.dtype).eps) * largest / width
    return 16 * last_places if np.isfinite(last_places) and bins < MOST else np.inf


def _edges(array: Array, bins: Any, between: Any) -> tuple[Array, Any]:
    """The edges of bins, and between what NumPy is to have the same; or NumPy's errors."""
    if between is not None or np.ndim(bins) == 1:
        return np.histogram_bin_edges(array[:1], bins, between), between
    ends = extremes(array)
    return np.histogram_bin_edges(ends, bins), tuple(ends)


def _jittable(array: Array, found: Array) -> bool:
    """Whether the elements are of the edges' type, or integers that it has exactly."""
    if not array.dtype.isnative or not array.flags.aligned:
        return False
    if array.dtype.kind == "f":
        return array.dtype.char in "fd" and found.dtype.char in "fd"
    exact = array.dtype.itemsize < 8 or max(abs(int(end)) for end in extremes(array)) < EXACT
    return found.dtype.char == "d" and exact


def extremes(array: Array) -> Array:
    """The least and the greatest element; NaN where there is one."""
    bounds = edges(array.size, workers())
    found = np.empty((len(bounds) - 1, 2), array.dtype)

    def part(number: int) -> None:
        elements = array[bounds[number] : bounds[number + 1]]
        found[number] = elements.min(), elements.max()

    run_parts(part, len(found))
    return np.array([found[:, 0].min(), found[:, 1].max()], array.dtype)


def _weighed(array: Array, bins: Any, between: Any, weights: Array) -> tuple[Array, Array]:
    """Block by block, and these added up in order: the bits of NumPy's own sums."""
    found, between = _edges(array, bins, between)
    blocks = -(-array.size // BLOCK)
    if weights.dtype.kind not in "iufc" or found.size > BLOCK // 4:
        return np.histogram(array, bins, between, weights=weights)
    sums = np.zeros((blocks, found.size - 1), weights.dtype)

    def part(number: int) -> None:
        block = slice(BLOCK * number, BLOCK * (number + 1))
        sums[number] = np.histogram(array[block], bins, between, weights=weights[block])[0]

    run_parts(part, blocks)
    total = np.zeros(found.size - 1, weights.dtype)
    for row in sums:
        total += row
    return total, found


def bincount(x: Any, /, weights: Any = None, minlength: Any = 0) -> Any:
    """`numpy.bincount`."""
    x, weights = unwrapped(x), unwrapped(weights)
    array, weighed = plain_array(x), plain_array(weights)
    if array is None or not _countable(array) or not isinstance(minlength, (int, np.integer)):
        return np.bincount(x, weights, minlength)
    found = None
    if minlength >= 0 and weights is None:
        found = _bincount(array, int(minlength))
    elif minlength >= 0 and weighed is not None and weighed.shape == array.shape:
        found = _bincount_weighed(array, weighed, int(minlength))
    return np.bincount(x, weights, minlength) if found is None else found


def _bincount(array: Array, minlength: int) -> Array | None:
    """How often each integer is there; None if NumPy is to say, or needs less memory."""
    bounds = edges(array.size, workers())
    most = array.size // (len(bounds) - 1)
    counted: dict[int, Array] = {}

    def part(number: int) -> None:
        counts = _count(array[bounds[number] : bounds[number + 1]], most)
        if counts is not None:
            counted[number] = counts

    count_until(array[:1], np.zeros(0, np.intp), 1)  # compiled in the thread that called
    run_parts(part, len(bounds) - 1)
    if len(counted) < len(bounds) - 1:
        return None
    total = np.zeros(max(minlength, *(counts.size for counts in counted.values())), np.intp)
    for counts in counted.values():
        total[: counts.size] += counts
    return total


def _count(part: Array, most: int) -> Array | None:
    """The counts of a part; None if there are negative ones, or more than so many bins."""
    counts, done = np.zeros(0, np.intp), 0
    while True:
        more, low, high = count_until(part[done:], counts, COUNTED)
        done += more
        if done == part.size:
            return counts
        if low < 0 or high >= most:
            return None
        counts = np.concatenate([counts, np.zeros(int(high) + 1 - counts.size, np.intp)])


def _bincount_weighed(array: Array, weights: Array, minlength: int) -> Array | None:
    low, high = map(int, extremes(array))
    size = max(high + 1, minlength)
    if low < 0 or size * PARTS > array.size or weights.dtype.kind not in "biuf":
        return None
    weights, bounds = weights.astype(float, copy=False), edges(array.size, PARTS)
    sums = np.zeros((PARTS, size))

    def part(start: int, stop: int, bins: Array) -> None:
        add_up(array[start:stop], weights[start:stop], bins)

    part(0, 0, sums[0])  # compiled in the thread that called
    run_parts(lambda number: part(bounds[number], bounds[number + 1], sums[number]), PARTS)
    return np.asarray(sums.sum(0))


def _countable(array: Array) -> bool:
    plain = array.ndim == 1 and array.size >= SIZE and array.dtype.isnative and array.flags.aligned
    return plain and array.dtype.kind in "iu" and np.can_cast(array.dtype, np.intp)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.histogram: histogram,
    np.bincount: bincount,
}

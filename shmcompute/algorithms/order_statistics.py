"""`numpy.median`, `quantile` and `percentile` on all cores.

The elements of wanted ranks are found without sorting: a sample gives bounds between which they lie
almost surely; one pass counts what is below and keeps what is between, some hundredths of all.
(Floyd and Rivest, "Expected Time Bounds for Selection", 1975.) What becomes of these elements NumPy
itself computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.algorithms.parts import edges, plain_array, run_parts, unwrapped, workers
from shmcompute.typing import Array

SIZE = 1 << 17  # elements: fewer NumPy selects as quickly
BLOCK = 1 << 14  # that are compared while they are in a core's caches
SAMPLE = 1 << 15
MARGIN = 2 * math.isqrt(SAMPLE)  # four standard deviations of a rank in the sample
QUANTILES = 8  # more NumPy finds at once


def median(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: Any = False, keepdims: Any = False
) -> Any:
    """`numpy.median`."""
    a, out = unwrapped(a), unwrapped(out)
    array = plain_array(a)
    if array is not None and out is None and _is_flat(array, axis):
        pair = middle(array.reshape(-1), (array.size - 1) // 2, array.size // 2)
        if pair is not None:
            return _shaped(np.median(pair), array, keepdims)
    if array is not None and out is None and _has_rows(array, axis):
        return _by_rows(
            lambda rows: np.median(rows, axis, keepdims=keepdims), array, axis, keepdims
        )
    return np.median(a, axis, out, overwrite_input, keepdims)


def quantile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: Any = None,
    overwrite_input: Any = False,
    method: Any = "linear",
    keepdims: Any = False,
    **others: Any,
) -> Any:
    """`numpy.quantile`."""
    options = {"method": method, "keepdims": keepdims, **others}
    return _quantiles(np.quantile, 1, a, q, axis, out, overwrite_input, options)


def percentile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: Any = None,
    overwrite_input: Any = False,
    method: Any = "linear",
    keepdims: Any = False,
    **others: Any,
) -> Any:
    """`numpy.percentile`."""
    options = {"method": method, "keepdims": keepdims, **others}
    return _quantiles(np.percentile, 100, a, q, axis, out, overwrite_input, options)


def _quantiles(
    function: Callable[..., Any],
    whole: int,
    a: Any,
    q: Any,
    axis: Any,
    out: Any,
    overwrite_input: Any,
    options: dict[str, Any],
) -> Any:
    """NumPy's `function` of `q`, which is counted in parts of `whole`."""
    a, q, out = unwrapped(a), unwrapped(q), unwrapped(out)
    array, keepdims = plain_array(a), options["keepdims"]
    if array is not None and out is None and options.keys() == {"method", "keepdims"}:
        # Of float32 NumPy rounds the percentage, too.
        exact = whole == 1 or array.dtype.kind in "iu" or array.dtype == np.float64
        linear = options["method"] == "linear" and exact
        if linear and _is_flat(array, axis) and _few(q, whole):
            found = _linear(array.reshape(-1), q, whole)
            if found is not None:
                return _shaped(found, array, keepdims)
        if _has_rows(array, axis):
            call = lambda rows: function(rows, q, axis, **options)  # noqa: E731
            return _by_rows(call, array, axis, keepdims, np.ndim(q))
    return function(a, q, axis, out, overwrite_input, **options)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.median: median,
    np.quantile: quantile,
    np.percentile: percentile,
}


def _is_flat(array: Array, axis: Any) -> bool:
    """Whether it is large, of numbers, and taken as one row."""
    one = axis is None or (array.ndim == 1 and type(axis) is int and axis in (0, -1))
    plain = array.flags.c_contiguous and array.dtype.isnative and array.flags.aligned
    return array.size >= SIZE and one and plain and array.dtype.char in "bBhHiIlLqQfd"


def _few(q: Any, whole: int) -> bool:
    """Whether these are some float64 between 0 and `whole`."""
    if type(q) not in (int, float, list, tuple, np.ndarray, np.float64):
        return False
    given = np.asarray(q)
    if given.dtype != np.float64 and (whole == 1 or given.dtype.kind not in "iu"):
        return False  # of integers, 0 and 1, NumPy makes elements as they are
    return (
        given.ndim <= 1
        and given.size <= QUANTILES
        and bool(((given >= 0) & (given <= whole)).all())
    )


def _linear(flat: Array, q: Any, whole: int) -> Any:
    """Quantiles between two neighbours. None if not found.

    For NumPy a quantile of two elements lies between them as this one lies between its neighbours.
    """
    found = []
    for place in np.atleast_1d((flat.size - 1) * np.true_divide(q, whole)).tolist():
        low = math.floor(place)
        pair = middle(flat, low, min(low + 1, flat.size - 1))
        if pair is None:
            return None
        part = place - low
        found.append(np.quantile(pair, part if type(q) in (int, float) else np.float64(part)))
    return found[0] if np.ndim(q) == 0 else np.array(found, found[0].dtype if found else float)


def middle(flat: Array, low: int, high: int) -> Array | None:
    """The elements that would stand at these ranks, neighbours, of the sorted array.

    None where NumPy is to find them: where one is no number, or 0.0 and -0.0 are equal to it.
    """
    sample = np.sort(flat[np.random.default_rng(0).integers(0, flat.size, SAMPLE)])
    place = low * SAMPLE // flat.size
    below, kept = _between(
        flat,
        sample[place - MARGIN] if place > MARGIN else None,
        sample[place + MARGIN] if place + MARGIN < SAMPLE else None,
    )
    if not 0 <= low - below <= high - below < kept.size:
        return None
    if flat.dtype.kind == "f" and (
        np.isnan(kept).any() or len(set(np.signbit(kept[kept == 0]))) > 1
    ):
        return None
    ranks = [low - below, high - below]
    return np.asarray(np.partition(kept, ranks)[ranks])


def _between(flat: Array, least: Any, most: Any) -> tuple[int, Array]:
    """How many elements are less than `least`; and those that are not, nor more than `most`."""
    bounds = edges(flat.size, workers())
    below, kept = [0] * (len(bounds) - 1), [flat[:0]] * (len(bounds) - 1)

    def part(number: int) -> None:
        blocks = []
        for i in range(bounds[number], bounds[number + 1], BLOCK):
            block = flat[i : min(i + BLOCK, bounds[number + 1])]
            out = np.zeros(block.size, bool) if least is None else block < least
            below[number] += int(np.count_nonzero(out))
            if most is not None:
                out |= block > most
            blocks.append(block[~out])
        kept[number] = np.concatenate(blocks) if blocks else flat[:0]

    run_parts(part, len(below))
    return sum(below), np.concatenate(kept)


def _shaped(result: Any, array: Array, keepdims: Any) -> Any:
    if not keepdims or keepdims is np._NoValue:
        return result
    return np.reshape(result, np.shape(result) + (1,) * array.ndim)


def _has_rows(array: Array, axis: Any) -> bool:
    return (
        type(axis) is int
        and array.ndim > 1
        and array.size >= SIZE
        and -array.ndim <= axis < array.ndim
    )


def _by_rows(
    function: Callable[[Array], Any], array: Array, axis: int, keepdims: Any, before: int = 0
) -> Any:
    """What a function says of all rows along an axis, in parts that hold whole rows.

    `before`: how many axes its results have before those of the array.
    """
    axis %= array.ndim
    others = [number for number in range(array.ndim) if number != axis]
    along = max(others, key=lambda number: array.shape[number])
    bounds = edges(array.shape[along], min(array.shape[along], 4 * workers()))
    found: list[Any] = [None] * (len(bounds) - 1)

    def part(number: int) -> None:
        place = (slice(None),) * along + (slice(bounds[number], bounds[number + 1]),)
        found[number] = function(array[place])

    run_parts(part, len(found))
    shift = along > axis and not keepdims
    # In the dtype that NumPy gives: `concatenate` alone would turn its bytes round.
    return np.concatenate(found, axis=before + along - shift, dtype=found[0].dtype)

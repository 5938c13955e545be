"""NumPy's reductions by name, each with the parameters that it has there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.algorithms.reductions import (
    INTEGERS,
    NOT_GIVEN,
    ORDERED,
    SUMMED,
    Reduction,
    give,
)
from shmcompute.typing import Array

Form = Callable[..., Any]

HEAD = 1 << 16  # bytes, in which `any` and `all` mostly find what they look for

ADD = Reduction(np.add, SUMMED)
# Products of floats leave their range on the way, or not, as they are grouped.
MULTIPLY = Reduction(np.multiply, INTEGERS)
MINIMUM, MAXIMUM = Reduction(np.minimum, ORDERED), Reduction(np.maximum, ORDERED)
NANADD = Reduction(np.add, SUMMED.replace("m", ""), np.nansum)


def _with_dtype(reduction: Reduction) -> Form:
    """`numpy.sum` and `numpy.prod`."""

    def form(
        a: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
        initial: Any = NOT_GIVEN,
        where: Any = NOT_GIVEN,
    ) -> Any:
        return reduction.of(a, axis, dtype, out, keepdims, initial, where)

    return form


def _without(reduction: Reduction) -> Form:
    """`numpy.min` and `numpy.max`."""

    def form(
        a: Any,
        axis: Any = None,
        out: Any = None,
        keepdims: Any = False,
        initial: Any = NOT_GIVEN,
        where: Any = NOT_GIVEN,
    ) -> Any:
        return reduction.of(a, axis, None, out, keepdims, initial, where)

    return form


def _of_ufunc(reduction: Reduction) -> Form:
    """``ufunc.reduce``, which has another default for the axis."""

    def form(array: Any, axis: Any = 0, *args: Any, **kwargs: Any) -> Any:
        return reduction.of(array, axis, *args, **kwargs)

    return form


def _truth(ufunc: np.ufunc, decisive: bool) -> Form:
    """`numpy.any` and `numpy.all`: where one element decides, no part begins after it is found."""

    def form(
        a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = NOT_GIVEN
    ) -> Any:
        if axis is not None or where is not NOT_GIVEN:
            return Reduction(ufunc, ORDERED).of(a, axis, None, out, keepdims, where=where)
        if type(a) is np.ndarray and ufunc.reduce(_head(a)) == decisive:
            return NotImplemented  # NumPy will find it there, too
        return Reduction(ufunc, ORDERED, _until(ufunc, decisive)).of(a, None, None, out, keepdims)

    return form


def _head(a: Array) -> Array:
    return a.reshape(-1, order="A")[: max(1, HEAD // max(1, a.itemsize))]


def _until(ufunc: np.ufunc, decisive: bool) -> Form:
    """``ufunc.reduce`` of parts of one array, until one has come to what decides."""
    decided = False

    def reduce(part: Array, *, out: Any = None, **options: Any) -> Any:
        nonlocal decided
        if decided:
            out[...] = decisive
            return out
        result = ufunc.reduce(part, out=out, **options)
        decided = decided or (out is not None and bool(result.item()) == decisive)
        return result

    return reduce


def _ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    if type(a) is not np.ndarray or a.dtype.char == "?":
        return NotImplemented
    high = MAXIMUM.of(a, axis, None, out, keepdims)
    low = NotImplemented if high is NotImplemented else MINIMUM.of(a, axis, None, None, keepdims)
    return NotImplemented if low is NotImplemented else np.subtract(high, low, out=out)


def _count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    return Reduction(np.add, ORDERED, _count).of(a, axis, None, None, keepdims)


def _count(part: Array, *, out: Any = None, **options: Any) -> Any:
    counts = np.count_nonzero(part, axis=options["axis"], keepdims=True)
    if out is not None:
        out[...] = counts
    return counts


def _without_nan(reduction: Reduction) -> Form:
    """`numpy.nanmin` and `numpy.nanmax`, unless there is nothing else: of that NumPy warns."""
    form = _without(reduction)

    def found(a: Any, *args: Any, **kwargs: Any) -> Any:
        result = form(a, *args, **kwargs)
        if result is NotImplemented or np.isnan(result).any():
            return NotImplemented
        return result

    return found


def _nanmean(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    *,
    where: Any = NOT_GIVEN,
) -> Any:
    if type(a) is not np.ndarray or a.dtype.kind != "f" or dtype is not None or out is not None:
        return NotImplemented
    counts = Reduction(np.add, ORDERED, _count_numbers).of(a, axis, None, None, True, where=where)
    if counts is NotImplemented or not np.all(counts):  # NumPy warns of means of nothing
        return NotImplemented
    total = NANADD.of(a, axis, None, None, keepdims, where=where)
    if total is NotImplemented:
        return NotImplemented
    divided = np.true_divide(total, counts.reshape(np.shape(total)))
    return give(divided.astype(a.dtype.newbyteorder("="), copy=False), None)


def _count_numbers(part: Array, **options: Any) -> Any:
    return np.add.reduce(~np.isnan(part), **{**options, "dtype": np.intp})


FUNCTIONS: dict[Callable[..., Any], Form] = {
    np.sum: _with_dtype(ADD),
    np.prod: _with_dtype(MULTIPLY),
    np.min: _without(MINIMUM),
    np.amin: _without(MINIMUM),
    np.max: _without(MAXIMUM),
    np.amax: _without(MAXIMUM),
    np.any: _truth(np.logical_or, decisive=True),
    np.all: _truth(np.logical_and, decisive=False),
    np.ptp: _ptp,
    np.count_nonzero: _count_nonzero,
    np.nansum: _with_dtype(NANADD),
    np.nanmin: _without_nan(Reduction(np.fmin, ORDERED)),
    np.nanmax: _without_nan(Reduction(np.fmax, ORDERED)),
    np.nanmean: _nanmean,
    np.add.reduce: _of_ufunc(ADD),
    np.multiply.reduce: _of_ufunc(MULTIPLY),
    np.minimum.reduce: _of_ufunc(MINIMUM),
    np.maximum.reduce: _of_ufunc(MAXIMUM),
}

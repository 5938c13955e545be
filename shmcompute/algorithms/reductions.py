"""Reductions: parts are reduced by NumPy's own functions, and their results by them again.

What is done to which elements, and in which order, follows from an array's shape and dtype alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from shmcompute.algorithms.parts import run_parts
from shmcompute.algorithms.slabs import Slabs, slabs
from shmcompute.typing import Array

NOT_GIVEN: Any = object()

INTEGERS = "?bBhHiIlLqQ"
FLOATS = "fdgFDG"
# Not half floats: a sum that is a half float after each part loses what NumPy's does not.
SUMMED = f"{INTEGERS}{FLOATS}m"
ORDERED = f"{INTEGERS}{FLOATS}emM"


@dataclass(frozen=True)
class Reduction:
    """What reduces a part, and what their results: a ufunc.

    Attributes
    ----------
    ufunc : ufunc
    kinds : str
        Characters of the dtypes that it may be asked for in parts.
    part : callable, optional
        Called as ``ufunc.reduce`` for a part, if it is not that.
    """

    ufunc: np.ufunc
    kinds: str
    part: Callable[..., Any] | None = None

    def of(
        self,
        x: Any,
        axis: Any = None,
        dtype: Any = None,
        out: Any = None,
        keepdims: Any = False,
        initial: Any = NOT_GIVEN,
        where: Any = NOT_GIVEN,
    ) -> Any:
        """As ``ufunc.reduce``, in parts; NotImplemented for what NumPy is to do."""
        cut = self._cut(x, dtype, initial, where)
        axes = axes_of(x, axis)
        if cut is None or not axes:
            return NotImplemented
        reduce = self.part or self.ufunc.reduce
        kind = _kind_of_result(reduce, x, axes, dtype)
        if kind is None or not takes(out, shape_of(x, axes, keepdims), kind):
            return NotImplemented
        options = self._options(x, cut.axis in axes, initial, where)
        results = _reduced(partial(reduce, axis=axes, dtype=dtype), x, axes, kind, cut, options)
        if cut.axis in axes:
            more = {} if initial is NOT_GIVEN else {"initial": initial}
            if kind.kind not in "mM":  # of these NumPy does not take the unit
                more["dtype"] = kind
            results = self.ufunc.reduce(results, axis=cut.axis, keepdims=True, **more)
        return give(results.reshape(shape_of(x, axes, keepdims)), out)

    def _cut(self, x: Any, dtype: Any, initial: Any, where: Any) -> Slabs | None:
        if type(x) is not np.ndarray or x.dtype.char not in self.kinds or initial is None:
            return None
        if dtype is not None and np.dtype(dtype).char not in self.kinds:
            return None
        if where is not NOT_GIVEN and initial is NOT_GIVEN and self.ufunc.identity is None:
            return None  # NumPy says what is missing
        return slabs(x)

    def _options(
        self, x: Array, combined: bool, initial: Any, where: Any
    ) -> Callable[[tuple[slice, ...]], dict[str, Any]]:
        """What reduces the part at an index is to be called with."""
        fixed = {}
        # Where results are combined it counts once; but for a minimum it may count twice.
        if initial is not NOT_GIVEN and (not combined or self.ufunc.identity is None):
            fixed["initial"] = initial
        if where is NOT_GIVEN:
            return lambda _: fixed
        mask = np.broadcast_to(where, x.shape)
        return lambda index: {**fixed, "where": mask[index]}


def _reduced(
    reduce: Callable[..., Any],
    x: Array,
    axes: Sequence[int],
    kind: np.dtype[Any],
    cut: Slabs,
    options: Callable[[tuple[slice, ...]], dict[str, Any]],
) -> Array:
    """The results of all parts, one after the other along the axis that is cut."""
    shape = list(shape_of(x, axes, True))
    combined = cut.axis in axes
    if combined:
        shape[cut.axis] = cut.count
    results = np.empty(shape, kind)

    def part(number: int) -> None:
        index = cut.index(number)
        place = cut.place(number, number + 1) if combined else index
        reduce(x[index], out=results[place], keepdims=True, **options(index))

    run_parts(part, cut.count)
    return results


def axes_of(x: Any, axis: Any) -> tuple[int, ...]:
    """The axes that are meant; none if NumPy is to say what is wrong with them."""
    if type(x) is not np.ndarray or isinstance(axis, bool):
        return ()
    try:
        return tuple(range(x.ndim)) if axis is None else normalize_axis_tuple(axis, x.ndim)
    except (TypeError, ValueError):
        return ()


def shape_of(x: Array, axes: Sequence[int], keepdims: Any) -> tuple[int, ...]:
    """The shape of what is left when these axes are reduced."""
    sizes = enumerate(x.shape)
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in sizes)
    return tuple(size for axis, size in sizes if axis not in axes)


def _kind_of_result(
    reduce: Callable[..., Any], x: Array, axes: Sequence[int], dtype: Any
) -> np.dtype[Any] | None:
    """The dtype of the result; None if NumPy is to say what is wrong with it."""
    try:
        one = reduce(x[(slice(0, 1),) * x.ndim], axis=axes, dtype=dtype, keepdims=True)
    except (TypeError, ValueError):
        return None
    return one.dtype  # type: ignore[no-any-return]  # of ufuncs nothing is typed


def takes(out: Any, shape: tuple[int, ...], kind: np.dtype[Any]) -> bool:
    """Whether a result can be put there as it is."""
    if out is None:
        return True
    return type(out) is np.ndarray and out.shape == shape and out.dtype == kind


def give(result: Array, out: Any) -> Any:
    """A result as NumPy has it: in `out`, or a scalar for an array without dimensions."""
    if out is None:
        return result[()]
    out[...] = result
    return out

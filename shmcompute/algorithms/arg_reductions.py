"""`argmin` and `argmax`: of each part by NumPy; then of what the parts have found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.algorithms.parts import run_parts
from shmcompute.algorithms.reductions import ORDERED, axes_of, give, shape_of, takes
from shmcompute.algorithms.slabs import slabs
from shmcompute.typing import Array

Form = Callable[..., Any]


def _form(function: Form) -> Form:
    """The parallel form of `numpy.argmin` or `numpy.argmax`."""

    def form(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
        axes = axes_of(a, axis)
        if not axes or a.dtype.char not in ORDERED or isinstance(axis, tuple):
            return NotImplemented
        shape = shape_of(a, axes, keepdims)
        if not takes(out, shape, np.dtype(np.intp)):
            return NotImplemented
        found = _whole(function, a) if len(axes) == a.ndim else _along(function, a, axes[0])
        return NotImplemented if found is None else give(found.reshape(shape), out)

    return form


def _whole(function: Form, a: Array) -> Array | None:
    """The place of the first of all in C order; None if it is not to be had so."""
    cut = slabs(a.reshape(-1)) if a.flags.c_contiguous else None
    if cut is None:
        return None
    flat, places = a.reshape(-1), np.empty(cut.count, np.intp)

    def part(number: int) -> None:
        places[number] = cut.edges[number] + function(flat[cut.index(number)])

    run_parts(part, cut.count)
    # The first part that has the extreme, or a NaN: as of elements.
    return np.array(places[function(flat[places])])


def _along(function: Form, a: Array, axis: int) -> Array | None:
    """The places along an axis, where another one is cut."""
    cut = slabs(a, whole=axis)
    if cut is None:
        return None
    places = np.empty(shape_of(a, (axis,), True), np.intp)

    def part(number: int) -> None:
        index = cut.index(number)
        places[index] = function(a[index], axis=axis, keepdims=True)

    run_parts(part, cut.count)
    return places


FUNCTIONS: dict[Callable[..., Any], Form] = {
    np.argmin: _form(np.argmin),
    np.argmax: _form(np.argmax),
}

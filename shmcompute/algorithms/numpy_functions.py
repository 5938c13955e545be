"""Which of NumPy's functions and methods have a parallel form: what a `SharedArray` calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.algorithms import (
    arg_reductions,
    cumulative,
    elementwise,
    histogram,
    moments,
    numpy_reductions,
    order_statistics,
    search,
    sort,
    unique,
)
from shmcompute.typing import Array


def _sort(
    a: Array, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Any:
    """``ndarray.sort``, in place."""
    if not a.flags.writeable or not a.ndim or (kind is not None and stable is not None):
        return NotImplemented  # NumPy says what is wrong
    sort.parallel_sort(a, axis=axis, kind="stable" if stable else kind, order=order)
    return None


FORMS: dict[Callable[..., Any], Callable[..., Any]] = {
    **numpy_reductions.FUNCTIONS,
    **arg_reductions.FUNCTIONS,
    **moments.FUNCTIONS,
    **cumulative.FUNCTIONS,
    **elementwise.FUNCTIONS,
    **sort.FUNCTIONS,
    **histogram.FUNCTIONS,
    **order_statistics.FUNCTIONS,
    **search.FUNCTIONS,
    **unique.FUNCTIONS,
    np.ndarray.sort: _sort,
}

"""Which of NumPy's functions and methods have a parallel form: what a `SharedArray` calls."""

from __future__ import annotations

from shmcompute.algorithms import (
    arg_reductions,
    cumulative,
    elementwise,
    moments,
    numpy_reductions,
)

FORMS = {
    **numpy_reductions.FUNCTIONS,
    **arg_reductions.FUNCTIONS,
    **moments.FUNCTIONS,
    **cumulative.FUNCTIONS,
    **elementwise.FUNCTIONS,
}

"""Parallel forms of NumPy's functions: where a `SharedArray` finds them, and when it asks for them.

They are made of calls, so they stand on a floor above this one, which hands them down: it says how
they are to be had, and they are imported by the first call with an array that is large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Form = Callable[..., Any]
Forms = Mapping[Callable[..., Any], Form]

# Bytes of an argument from which on a form is asked for: below, who only calls the threads takes
# as long as NumPy does.
LARGE = 1 << 20


def _no_forms() -> Forms:
    return {}


_load: Callable[[], Forms] = _no_forms


def provide_parallel_forms(load: Callable[[], Forms]) -> None:
    """Have `load` called for the forms when they are wanted: a mapping by NumPy's functions.

    A form is called as that function, with plain arrays. It returns `NotImplemented` for what it
    leaves to NumPy, and has changed nothing then. A function may be a method of ndarray (in place,
    as ``numpy.ndarray.sort``) or of a ufunc (``numpy.add.reduce``).
    """
    global _load
    _load = load


def call_parallel(
    function: Callable[..., Any], args: Iterable[Any], keywords: Mapping[str, Any]
) -> Any:
    """What the function's parallel form returns; NotImplemented if NumPy is to be called."""
    for value in (*args, *keywords.values()):
        if type(value) is np.ndarray and value.nbytes >= LARGE:
            break
    else:
        return NotImplemented
    form = _load().get(function)
    return NotImplemented if form is None else form(*args, **keywords)

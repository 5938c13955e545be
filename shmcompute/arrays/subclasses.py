"""Subclasses of ndarray, of which shared memory keeps the elements and nothing else.

A mask, a unit or a matrix product is lost when an array is taken for its elements, and what is
computed then is wrong without a word. So those who take elements refuse such arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# To be mapped from a file, or to have fields as attributes, changes no number.
PLAIN = frozenset({np.ndarray, np.memmap, np.recarray})


def refuse_subclass(what: str, value: Any) -> None:
    """Raise for an array, or a list of arrays, that means more than its elements.

    Parameters
    ----------
    what : str
        What messages call it.
    value : object
        Anything; what is no ndarray is no concern here.

    Raises
    ------
    TypeError
    """
    kind = type(value)
    if kind in PLAIN:
        return
    if isinstance(value, np.ndarray):
        raise TypeError(_refusal(what, value))
    if kind in (list, tuple) and value and isinstance(value[0], (np.ndarray, list, tuple)):
        for row in value:
            refuse_subclass(f"a row of {what}", row)


def _refusal(what: str, value: Any) -> str:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, np.ma.MaskedArray):
        return (
            f"{what} is a {kind}, whose mask would be ignored: pass x.filled(value) or x.data, and "
            "the mask as an array of its own"
        )
    return (
        f"{what} is a {kind}, a subclass of ndarray of which only the elements would be kept: if "
        "these are what you mean, pass np.asarray(x)"
    )

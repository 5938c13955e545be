"""`address`: where an array's first element is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

_read = ctypes.c_void_p.from_address
_DATA = object.__basicsize__  # an array object begins as any object; then comes the address


def _as_told(view: Any) -> int:
    address: int = view.__array_interface__["data"][0]
    return address


def _as_it_stands(view: Any) -> int:
    return _read(id(view) + _DATA).value or 0


def _quickest() -> Callable[[Any], int]:
    """The way that takes a tenth of the time, if arrays look here as in NumPy's C API."""
    whole = np.zeros(4)
    arrays = whole, whole[1:]
    fits = np.ndarray.__basicsize__ >= _DATA + 8
    if fits and all(_as_it_stands(array) == _as_told(array) for array in arrays):
        return _as_it_stands
    return _as_told


# The address of an ndarray's first element. Of a subclass that may tell another one, ask itself.
address = _quickest()

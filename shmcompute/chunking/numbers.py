"""Numbers among the arguments of a call, which may change from call to call of one plan."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

Number = bool | int | float | complex | np.number[Any] | np.bool_
Values = tuple[Number, ...]

VALUES = 64  # how many numbers of a call may change: as many as fit into a control block
VALUE = 16  # bytes that one of them takes

# How a number stands in memory. NumPy's keep their type: a kernel may ask for it.
FORMATS: dict[type[Any], str] = {
    int: "q8x",
    float: "d8x",
    bool: "?15x",
    complex: "dd",
    np.bool_: "?15x",
    np.int8: "b15x",
    np.int16: "h14x",
    np.int32: "i12x",
    np.int64: "q8x",
    np.uint8: "B15x",
    np.uint16: "H14x",
    np.uint32: "I12x",
    np.uint64: "Q8x",
    np.float32: "f12x",
    np.float64: "d8x",
    np.complex64: "ff8x",
    np.complex128: "dd",
}
COMPLEX = frozenset({complex, np.complex64, np.complex128})
_ALWAYS = frozenset(FORMATS) - {int}


def is_number(arg: Any) -> bool:
    """Whether an argument is a number that may change without another plan."""
    kind = type(arg)
    return kind in _ALWAYS or (kind is int and -(2**63) <= arg < 2**63)


def number_key(number: Any) -> Hashable:
    """Equal for numbers of one type and the same bits: 0.0 and -0.0 differ, a NaN is itself."""
    kind = type(number)
    return kind, np.asarray(number).tobytes() if is_number(number) else repr(number)

"""Keys of what `==` takes for equal, and kernels or checks do not."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np


def axis_key(axis: Any) -> Hashable:
    """Of an axis, a chunksize, or a pair of them: 1, True and 1.0 differ, of which one is valid."""
    if type(axis) is tuple:
        return axis, *map(type, axis)
    return axis, type(axis)


def dtype_key(dtype: np.dtype[Any]) -> Hashable:
    """Of a dtype: records, whose fields are attributes, are other than what is laid out alike."""
    if dtype.names is None:
        return dtype
    within = (dtype_key(dtype[name].base) for name in dtype.names)
    kind: Any = dtype.type  # mypy takes no class for hashable
    return dtype, kind, dtype.isalignedstruct, *within

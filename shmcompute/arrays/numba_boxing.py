"""How a `SharedArray` enters and leaves a jitted function.

Imported when Numba sees the first one, for it brings a good part of Numba with it.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import boxing
from numba.extending import NativeValue, box, models, register_model, unbox


class SharedArrayType(types.Array):
    """Like any array inside a jitted function; only the way in differs."""


register_model(SharedArrayType)(models.ArrayModel)


@unbox(SharedArrayType)
def _unbox(kind: SharedArrayType, value: Any, c: Any) -> NativeValue:
    array = c.pyapi.object_getattr_string(value, "array")
    native: NativeValue = boxing.unbox_array(kind, array, c)
    c.pyapi.decref(array)
    return native


@box(SharedArrayType)
def _box(kind: SharedArrayType, value: Any, c: Any) -> Any:
    return boxing.box_array(kind, value, c)

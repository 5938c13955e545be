"""Teaches Numba to take a `SharedArray` wherever it takes an array."""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import boxing
from numba.extending import NativeValue, box, models, register_model, typeof_impl, unbox

from shmcompute.array import SharedArray


class SharedArrayType(types.Array):
    """Like any array inside a jitted function; only the way in differs."""


register_model(SharedArrayType)(models.ArrayModel)


@typeof_impl.register(SharedArray)
def _typeof(value: SharedArray, context: Any) -> SharedArrayType:
    plain = typeof_impl(value.array, context)
    return SharedArrayType(
        plain.dtype, plain.ndim, plain.layout, readonly=not plain.mutable, aligned=plain.aligned
    )


@unbox(SharedArrayType)
def _unbox(kind: SharedArrayType, value: Any, c: Any) -> NativeValue:
    array = c.pyapi.object_getattr_string(value, "array")
    native: NativeValue = boxing.unbox_array(kind, array, c)
    c.pyapi.decref(array)
    return native


@box(SharedArrayType)
def _box(kind: SharedArrayType, value: Any, c: Any) -> Any:
    return boxing.box_array(kind, value, c)

"""Teaches Numba to take a `SharedArray` wherever it takes an array."""

from __future__ import annotations

from typing import Any

from numba.extending import typeof_impl

from shmcompute.arrays.shared_array import SharedArray


@typeof_impl.register(SharedArray)
def _typeof(value: SharedArray, context: Any) -> Any:
    from shmcompute.arrays.numba_boxing import SharedArrayType  # noqa: PLC0415  # 30 ms of Numba

    plain = typeof_impl(value.array, context)
    return SharedArrayType(
        plain.dtype, plain.ndim, plain.layout, readonly=not plain.mutable, aligned=plain.aligned
    )

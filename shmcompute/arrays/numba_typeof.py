"""Teaches Numba to take a `SharedArray` wherever it takes an array."""

from __future__ import annotations

from typing import Any

from numba.core.typing.typeof import Purpose
from numba.extending import typeof_impl

from shmcompute.arrays.shared_array import SharedArray


@typeof_impl.register(SharedArray)
def _typeof(value: SharedArray, context: Any) -> Any:
    if context.purpose is Purpose.constant:
        raise ValueError(  # which Numba turns into the error of a compilation that says where
            f"{value!r} is a global of a jitted function, or in its closure: Numba would freeze "
            "what it holds now. Pass it as an argument, to a kernel as sc.whole(x)"
        )
    from shmcompute.arrays.numba_boxing import SharedArrayType  # noqa: PLC0415  # 30 ms of Numba

    plain = typeof_impl(value.array, context)
    return SharedArrayType(
        plain.dtype, plain.ndim, plain.layout, readonly=not plain.mutable, aligned=plain.aligned
    )

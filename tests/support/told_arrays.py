"""Arrays as machine code is told of them: an address, a shape and strides, in words of memory."""

import ctypes

import numpy as np


def array_at(place, like):
    """The array that the words at `place` tell, of the dtype and as many axes as `like`."""
    words = (ctypes.c_int64 * (1 + 2 * like.ndim)).from_address(place)
    data, *rest = np.ctypeslib.as_array(words).tolist()
    shape, strides = rest[: like.ndim], rest[like.ndim :]
    low = sum(min(0, (size - 1) * step) for size, step in zip(shape, strides, strict=True))
    high = sum(max(0, (size - 1) * step) for size, step in zip(shape, strides, strict=True))
    memory = (ctypes.c_uint8 * (high - low + like.itemsize)).from_address(data + low)
    return np.ndarray(shape, like.dtype, memory, -low, strides)

"""`swapped`: a call in which two arrays have changed places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from shmcompute.arrays import SharedArray
from shmcompute.chunking import ARRAY_MARKERS
from shmcompute.plans.build import Calls
from shmcompute.system.addresses import address
from shmcompute.typing import Array

Pair = tuple[SharedArray, SharedArray]


def swapped(calls: Calls, pair: Pair) -> Calls:
    """The calls with the arrays, and views of them, exchanged.

    Raises
    ------
    ValueError
        If one of them is no argument.
    """
    exchange = _Exchange(pair)
    calls = [(kernel, *map(exchange, args)) for kernel, *args in calls]
    for number, array in enumerate(pair):
        if number not in exchange.met:
            raise ValueError(
                f"swap: array {number} (shape {array.shape}, {array.dtype}) is no argument of the "
                "call, nor is a view of it; pass both to the kernel, for each to be read and "
                "written in turn"
            )
    return calls


class _Exchange:
    """Exchanges two arrays in arguments."""

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self.met: set[int] = set()

    def __call__(self, arg: Any) -> Any:
        if isinstance(arg, ARRAY_MARKERS):
            inner = self(arg.value)
            return arg if inner is arg.value else replace(arg, value=inner)
        if isinstance(arg, (SharedArray, np.ndarray)):
            for number, array in enumerate(self._pair):
                other = self._pair[1 - number]
                if arg is array:
                    self.met.add(number)
                    return other
                if isinstance(arg, np.ndarray) and looks_into(arg, array.array):
                    self.met.add(number)
                    return _moved(arg, array.array, other.array)
        return arg


def looks_into(view: Array, array: Array) -> bool:
    """Whether a view begins within the memory of an array."""
    start, at = address(array), address(view)
    return start <= at < start + array.nbytes


def _moved(view: Array, array: Array, other: Array) -> Array:
    """The view that looks into `other` as `view` looks into `array`."""
    # Of bytes: not all types of elements may be had through a buffer.
    memory = other.reshape(-1, order="A").view(np.uint8)
    offset = address(view) - address(array)
    moved: Array = np.ndarray(view.shape, view.dtype, memory, offset, view.strides)
    moved.flags.writeable = view.flags.writeable and other.flags.writeable
    return moved

"""`SharedArray`, its lock, atomic operations on elements, and a manager of arrays."""

from typing import Any

from shmcompute.arrays import numba_typeof as _numba_typeof  # noqa: F401  # for Numba to know it
from shmcompute.arrays.atomics import atomic_add, atomic_max, atomic_min, compare_exchange
from shmcompute.arrays.parallel_forms import provide_parallel_forms
from shmcompute.arrays.shared_array import Shape, SharedArray, holder_of, receive
from shmcompute.arrays.subclasses import refuse_subclass

__all__ = [
    "Shape",
    "SharedArray",
    "SharedArrayManager",
    "atomic_add",
    "atomic_max",
    "atomic_min",
    "compare_exchange",
    "holder_of",
    "provide_parallel_forms",
    "receive",
    "refuse_subclass",
]


def __getattr__(name: str) -> Any:
    """Import at first use what brings much of multiprocessing with it."""
    if name == "SharedArrayManager":
        from shmcompute.arrays.manager import SharedArrayManager  # noqa: PLC0415

        return SharedArrayManager
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

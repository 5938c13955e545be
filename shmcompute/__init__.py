"""Shared-memory NumPy arrays that every core works on in place.

Wrap an array in a `SharedArray`, hand it with a kernel to `parallel_apply`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from shmcompute import errors
from shmcompute import numba_array as _numba_array  # noqa: F401  # Numba learns of SharedArray
from shmcompute.access import offset, read, split, whole
from shmcompute.apply import parallel_apply, plan
from shmcompute.array import SharedArray
from shmcompute.atomic import atomic_add, atomic_max, atomic_min, compare_exchange
from shmcompute.pool import Pool, shutdown

if TYPE_CHECKING:
    from shmcompute.array_queue import ArrayQueue
    from shmcompute.manager import SharedArrayManager

__version__ = "0.1.0"
__all__ = [
    "ArrayQueue",
    "Pool",
    "SharedArray",
    "SharedArrayManager",
    "atomic_add",
    "atomic_max",
    "atomic_min",
    "compare_exchange",
    "errors",
    "offset",
    "parallel_apply",
    "plan",
    "read",
    "shutdown",
    "split",
    "whole",
]


# What not every program wants is imported at its first use, so that our own import stays quick.
_LATE = {"ArrayQueue": "shmcompute.array_queue", "SharedArrayManager": "shmcompute.manager"}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})

"""Shared-memory NumPy arrays that every core works on in place.

Wrap an array in a `SharedArray`, hand it with a kernel to `parallel_apply`.
"""

import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError("shmcompute needs POSIX shared memory, locks and signals, so not Windows")

from shmcompute import errors
from shmcompute.apply import parallel_apply, plan
from shmcompute.arrays import SharedArray, atomic_add, atomic_max, atomic_min, compare_exchange
from shmcompute.chunking import (
    chunk,
    offset,
    per_chunk,
    read,
    scratch,
    shared,
    split,
    whole,
    write,
)
from shmcompute.loops import parallel_for
from shmcompute.pool import Pool, shutdown

if TYPE_CHECKING:
    from shmcompute.algorithms import parallel_argsort, parallel_sort
    from shmcompute.arrays import SharedArrayManager
    from shmcompute.queues import ArrayQueue

__version__ = "0.1.0"
__all__ = [
    "ArrayQueue",
    "Pool",
    "SharedArray",
    "SharedArrayManager",
    "atomic_add",
    "atomic_max",
    "atomic_min",
    "chunk",
    "compare_exchange",
    "errors",
    "offset",
    "parallel_apply",
    "parallel_argsort",
    "parallel_for",
    "parallel_sort",
    "per_chunk",
    "plan",
    "read",
    "scratch",
    "shared",
    "shutdown",
    "split",
    "whole",
    "write",
]


def __getattr__(name: str) -> Any:
    """Import at first use what few programs need, so that ``import shmcompute`` stays quick."""
    # ruff: noqa: PLC0415
    if name == "ArrayQueue":
        from shmcompute.queues import ArrayQueue

        return ArrayQueue
    if name == "SharedArrayManager":
        from shmcompute.arrays import SharedArrayManager

        return SharedArrayManager
    if name in ("parallel_argsort", "parallel_sort"):
        from shmcompute import algorithms

        return getattr(algorithms, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

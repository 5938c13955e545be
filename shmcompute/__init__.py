"""Shared-memory NumPy arrays that every core works on in place.

Wrap an array in a `SharedArray`, hand it with a kernel to `parallel_apply`.
"""

from shmcompute import errors
from shmcompute import numba_array as _numba_array  # noqa: F401  # Numba learns of SharedArray
from shmcompute.access import offset, read, split, whole
from shmcompute.apply import parallel_apply, plan
from shmcompute.array import SharedArray
from shmcompute.pool import Pool, shutdown

__version__ = "0.1.0"
__all__ = [
    "Pool",
    "SharedArray",
    "errors",
    "offset",
    "parallel_apply",
    "plan",
    "read",
    "shutdown",
    "split",
    "whole",
]

"""Pools that may be harmed, and the checker of quiescence."""

from __future__ import annotations

import zlib

import kernels
import numpy as np
import psutil
import pytest

import shmcompute as sc


def made(method, waiting, workers=2):
    """A pool of that start method and waiting."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHMCOMPUTE_WAIT", waiting)
        return sc.Pool(workers, start_method=method)


def works(pool):
    """The next call works."""
    with sc.SharedArray(np.arange(10.0)) as arr:
        sc.parallel_apply(kernels.affine_python, arr, 3.0, 1.0, pool=pool)
        np.testing.assert_array_equal(arr.array, np.arange(10.0) * 3 + 1)
    assert len(set(pool.pids)) == pool.workers


def stands_still(arr, pool, before):
    """Nobody writes to the array: what `before` were its workers has ended, or answers a call.

    Who was still writing between the two looks would either have ended or not have answered.
    """
    first = zlib.crc32(arr.array.tobytes())
    for pid in set(before) - set(pool.pids):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
    works(pool)
    assert zlib.crc32(arr.array.tobytes()) == first

"""Sweeps of kernels that see their neighbours through a halo."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.iterate.program import find_program
from shmcompute.plans import Options
from shmcompute.plans.swapping import swapped


@pytest.fixture(params=["forkserver", "caller", "threads", "serial"])
def some_pool(request, pools):
    """A pool of each way to run sweeps."""
    return pools[request.param]


START = np.random.default_rng(0).random((500, 6))
BOUNDARIES = ["edge", "reflect", "symmetric", "wrap", 1.5]


@nb.njit
def weigh(new, old):
    margin = old.shape[0] - new.shape[0]
    for i in range(new.shape[0]):
        for j in range(new.shape[1]):
            total = 0.0
            for k in range(margin + 1):
                total += old[i + k, j] * (k + 1)
            new[i, j] = total / (margin + 1)


def padded(array, depth, boundary):
    mode = {"mode": boundary} if isinstance(boundary, str) else {"constant_values": boundary}
    return np.pad(array, (depth, (0, 0)), **mode)


def swept(start, times, depth, boundary):
    old, new = start.copy(), start.copy()
    for _ in range(times):
        weigh(new, padded(old, depth, boundary))
        old, new = new, old
    return old


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize(("depth", "chunksize"), [((1, 1), None), ((0, 2), 1)])
def test_halos_with_a_boundary(some_pool, boundary, depth, chunksize):
    with sc.SharedArray(START) as old, sc.SharedArray(START) as new:
        last = sc.parallel_iterate(
            weigh,
            new,
            sc.halo(old, depth, boundary=boundary),
            times=13,
            swap=(old, new),
            pool=some_pool,
            chunksize=chunksize,
        )
        np.testing.assert_array_equal(last.array, swept(START, 13, depth, boundary))


@pytest.mark.parametrize("times", [1, 90])
def test_halos_of_longer_arrays(some_pool, times):
    with sc.SharedArray(START) as old, sc.SharedArray(START) as new:
        last = sc.parallel_iterate(
            weigh, new[2:-1], sc.halo(old, (2, 1)), times=times, swap=(old, new), pool=some_pool
        )
        a, b = START.copy(), START.copy()
        for _ in range(times):
            weigh(b[2:-1], a)
            a, b = b, a
        np.testing.assert_array_equal(last.array, a)


@pytest.mark.parametrize("boundary", [None, *BOUNDARIES])
def test_they_go_in_blocks_of_time_where_ends_see_what_is_near(pools, boundary):
    with sc.SharedArray(START) as old, sc.SharedArray(START) as new:
        written = new[1:-1] if boundary is None else new
        calls = [(weigh, written, sc.halo(old, 1, boundary=boundary))]
        pair = old, new
        program = find_program((calls, swapped(calls, pair)), Options(), pools["threads"], pair)
        assert program.plan.sweeps.schedule.blocked == (boundary != "wrap")
        program.release()

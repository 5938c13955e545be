"""Topics of neighbours: a kernel that sees more than its part, against a loop of prange."""

from contextlib import ExitStack
from functools import partial

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks.bars.speed import POOLS, WORKERS
from benchmarks.bars.turns import ratio, turns

SIDE, ROUNDS = 8192, 7


@nb.njit(nogil=True)
def blur_row(new, above, here, below):
    for j in range(1, new.size - 1):
        total = above[j - 1] + above[j] + above[j + 1] + here[j - 1] + here[j] + here[j + 1]
        new[j] = (total + below[j - 1] + below[j] + below[j + 1]) / 9


@nb.njit(nogil=True)
def blur_rows(new, old):
    for i in range(new.shape[0]):
        blur_row(new[i], old[i], old[i + 1], old[i + 2])


@nb.njit(parallel=True)
def blur_prange(new, old):
    last = old.shape[0] - 1
    for i in nb.prange(old.shape[0]):
        blur_row(new[i], old[max(i - 1, 0)], old[i], old[min(i + 1, last)])


def blur():
    """One large image, whose edge is repeated."""
    image = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    expected = np.zeros_like(image)
    nb.set_num_threads(WORKERS)
    theirs = partial(blur_prange, expected, image)
    theirs()
    with ExitStack() as opened, sc.SharedArray(image) as old:
        ours = {}
        new = opened.enter_context(sc.SharedArray(np.zeros_like(image)))
        for name, how in POOLS.items():
            pool = opened.enter_context(sc.Pool(WORKERS, **how)).ready()
            halo = sc.halo(old, 1, boundary="edge")
            ours[name] = partial(sc.parallel_apply, blur_rows, new, halo, pool=pool)
            new.array[:] = 0
            ours[name]()
            np.testing.assert_array_equal(new.array, expected)
        found = turns({"prange": theirs, **ours}, ROUNDS)
    for name in ours:
        yield ratio(f"blur of an image of {SIDE}^2, {name}", found, name, "prange", 1.05)

"""Topics of what NumPy's functions take on a large SharedArray, against themselves and prange."""

from contextlib import contextmanager

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks.bars.speed import ELEMENTS, LARGE, WORKERS
from benchmarks.bars.turns import ratio, turns

BLOCK = 1 << 16  # elements, where prange is to find a place and not only a value


@nb.njit(parallel=True)
def prange_sum(x):
    total = 0.0
    for i in nb.prange(x.size):
        total += x[i]
    return total


@nb.njit(parallel=True)
def prange_min(x):
    low = np.inf
    for i in nb.prange(x.size):
        low = min(low, x[i])
    return low


@nb.njit(parallel=True)
def prange_max(x):
    high = -np.inf
    for i in nb.prange(x.size):
        high = max(high, x[i])
    return high


@nb.njit(parallel=True)
def prange_argmax(x):
    count = (x.size + BLOCK - 1) // BLOCK
    places = np.empty(count, np.int64)
    for block in nb.prange(count):
        start = block * BLOCK
        places[block] = start + np.argmax(x[start : start + BLOCK])
    return places[np.argmax(x[places])]


def reductions():
    """In one pass over the array."""
    peers = {"sum": prange_sum, "min": prange_min, "max": prange_max, "argmax": prange_argmax}
    with _array() as arr:
        for name, peer in peers.items():
            ours, theirs = getattr(arr, name), f"prange {name}"
            found = turns({name: ours, theirs: lambda peer=peer: peer(arr.array)}, 9)
            yield ratio(f"{name}, {LARGE}, against a prange reduction", found, name, theirs, 1.05)


def moments():
    """Mean and standard deviation against NumPy's."""
    with _array() as arr:
        for name, bar in (("mean", 0.6), ("std", 0.25)):
            function = getattr(np, name)
            ways = {name: getattr(arr, name), f"np.{name}": lambda f=function: f(arr.array)}
            yield ratio(f"{name}, {LARGE}, against np.{name}", turns(ways), name, f"np.{name}", bar)


def cumulative():
    """In place; of zeros, which stay what they are."""
    with sc.SharedArray.zeros(ELEMENTS) as arr:
        ways = {
            "cumsum": lambda: np.cumsum(arr, out=arr),
            "np.cumsum": lambda: np.cumsum(arr.array, out=arr.array),
        }
        what = f"cumsum in place, {LARGE}, against np.cumsum"
        yield ratio(what, turns(ways), "cumsum", "np.cumsum", 0.65)


@contextmanager
def _array():
    nb.set_num_threads(WORKERS)
    with sc.SharedArray(np.random.default_rng(0).random(ELEMENTS)) as arr:
        yield arr

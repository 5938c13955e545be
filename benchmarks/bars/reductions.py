"""Topics of reductions and scans, against Numba's own reductions and NumPy."""

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks.bars.speed import ELEMENTS, LARGE, POOLS, WORKERS, calls
from benchmarks.bars.turns import ratio, turns


@nb.njit
def total(x):
    result = 0.0
    for i in range(x.size):
        result += x[i]
    return result


@nb.njit
def smallest(x):
    result = np.inf
    for i in range(x.size):
        result = min(result, x[i])
    return result


@nb.njit
def largest(x):
    result = -np.inf
    for i in range(x.size):
        result = max(result, x[i])
    return result


@nb.njit
def place(x, offset):
    best = 0
    for i in range(x.size):
        if x[i] > x[best]:
            best = i
    return x[best], offset + best


@nb.njit
def larger(one, other):
    return other if other[0] > one[0] else one


@nb.njit(parallel=True)
def total_prange(x):
    result = 0.0
    for i in nb.prange(x.size):
        result += x[i]
    return result


@nb.njit(parallel=True)
def smallest_prange(x):
    result = np.inf
    for i in nb.prange(x.size):
        result = min(result, x[i])
    return result


@nb.njit(parallel=True)
def largest_prange(x):
    result = -np.inf
    for i in nb.prange(x.size):
        result = max(result, x[i])
    return result


@nb.njit(parallel=True)
def place_prange(x):
    """Numba reduces no pairs: one a thread, then over these."""
    parts = nb.get_num_threads()
    best = np.zeros(parts, np.int64)
    for part in nb.prange(parts):
        start, stop = x.size * part // parts, x.size * (part + 1) // parts
        where = start
        for i in range(start, stop):
            if x[i] > x[where]:
                where = i
        best[part] = where
    return best[np.argmax(x[best])]


REDUCTIONS = {
    "sum": (total, (), np.add, total_prange),
    "min": (smallest, (), np.minimum, smallest_prange),
    "max": (largest, (), np.maximum, largest_prange),
    "argmax": (place, (sc.offset,), larger, place_prange),
}


def reduction():
    """One pass that only reads, by all backends."""
    data = np.random.default_rng(0).random(ELEMENTS)
    for name, (kernel, more, combine, peer) in REDUCTIONS.items():
        with calls(kernel, data, POOLS, _reduced, more=more, combine=combine) as ways:
            found = turns({"prange": _numba(peer, data), **ways}, 9)
        for way in ways:
            yield ratio(f"{name}, {LARGE}, {way}", found, way, "prange", 1.05)


def small_reduction():
    """1024 elements: nothing but handing out."""
    data, callers = np.ones(1024), "processes, caller_runs"
    with calls(total, data, POOLS, _reduced, more=(), combine=np.add) as ways:
        found = turns({"prange": _numba(total_prange, data), **ways}, 9)
    for way in (callers, "threads"):
        yield ratio(f"sum, 1024 elements, {way}", found, way, "prange", 4)


def scan():
    """Prefix sums in place: of zeros, which they leave as they are."""
    with sc.Pool(WORKERS, backend="threads") as pool, sc.SharedArray.zeros(ELEMENTS) as arr:
        own = np.zeros(ELEMENTS)
        ways = {
            "ours": lambda: sc.parallel_scan(np.add, arr, pool=pool),
            "np.cumsum": lambda: np.cumsum(own, out=own),
        }
        found = turns(ways, 7)
    yield ratio(f"cumsum in place, {LARGE}", found, "ours", "np.cumsum", 0.65)


def _reduced(kernel, array, more, combine, pool):
    return sc.parallel_reduce(kernel, array, *more, combine=combine, pool=pool)


def _numba(function, data):
    def run():
        nb.set_num_threads(WORKERS)
        return function(data)

    run()
    return run

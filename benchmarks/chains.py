"""Ways to run four streaming kernels over an array."""

from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import numpy as np

import shmcompute as sc
from benchmarks import kernels
from benchmarks.peers import inside, ours
from benchmarks.settings import WORKERS


def _each(functions):
    def run(array):
        for function in functions:
            function(array)

    return run


@contextmanager
def _plain(run, shape):
    with inside.granted_threads():
        array = np.empty(shape)
        yield array, partial(run, array)


def _in_one_expression(array):
    import numexpr as ne

    ne.set_num_threads(WORKERS)
    ne.evaluate(kernels.CHAIN_EXPRESSION, {"x": array}, {}, out=array)


@contextmanager
def _shared(run, shape, **pool):
    with sc.Pool(WORKERS, **pool) as workers, sc.SharedArray.empty(shape) as array:
        yield array.array, partial(run, array, workers)


def _four_calls(array, pool):
    for kernel in kernels.CHAIN:
        sc.parallel_apply(kernel, array, pool=pool)


def chains():
    """A context for each, by name: given a shape, it yields an array and what runs them."""
    prange = _each([kernels.parallel(kernel) for kernel in kernels.CHAIN])
    by_hand = kernels.parallel(kernels.chain_by_hand)
    found = {
        "NumPy": partial(_plain, kernels.chain_numpy),
        "serial": partial(_plain, _each(kernels.CHAIN)),
        "Numba prange": partial(_plain, prange),
        "Numba prange, fused by hand": partial(_plain, by_hand),
        "numexpr": partial(_plain, _in_one_expression),
    }
    for name in ("processes", "processes, caller_runs", "threads"):
        pool = ours.POOLS[name]
        found[f"shmcompute {name}"] = partial(_shared, _four_calls, **pool)
        found[f"shmcompute {name}, chain"] = partial(_shared, ours.chain, **pool)
    return found


def missing(name):
    """Why one can't be had here, or None."""
    if name == "numexpr" and find_spec("numexpr") is None:
        return "numexpr is not installed"
    return None

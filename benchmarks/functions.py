"""What NumPy's users call for a sum, a sort, a blur, and what else does the same."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

import shmcompute as sc
from benchmarks.bars.neighbours import blur_prange, blur_rows
from benchmarks.bars.numpy_functions import prange_argmax, prange_sum
from benchmarks.settings import ELEMENTS, WORKERS

BINS = 100
SIDE = int(ELEMENTS**0.5)


class Peer(NamedTuple):
    """A library, and how it takes an array of NumPy's."""

    module: str
    array: Callable[[Any], Any] = np.asarray
    result: Callable[[Any], Any] = np.asarray  # also where it answers before it is done


class Way(NamedTuple):
    """One library's function for a job."""

    peer: str
    call: Callable[[Any], Any]


def _torch(array):
    import torch  # it may be missing

    torch.set_num_threads(WORKERS)
    return torch.from_numpy(array)


def _jax(array):
    import jax  # it may be missing

    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray(array)


PEERS = {
    "shmcompute": Peer("shmcompute", sc.SharedArray),
    "NumPy": Peer("numpy"),
    "Numba prange": Peer("numba"),
    "SciPy": Peer("scipy"),
    "numexpr": Peer("numexpr"),
    "bottleneck": Peer("bottleneck"),
    "numbagg": Peer("numbagg"),
    "JAX": Peer("jax", _jax, lambda found: np.asarray(found.block_until_ready())),
    "torch": Peer("torch", _torch, lambda found: found.numpy()),
}


def missing(peer):
    """Why a library can't be had here; None if it can."""
    module = PEERS[peer].module
    return None if find_spec(module) else f"{module} is not installed"


def _of(module, name, *args, **keywords):
    """A function of a library that is imported when it is called first."""

    def call(array):
        found = __import__(module, fromlist=[""])
        for part in name.split("."):
            found = getattr(found, part)
        return found(array, *args, **keywords)

    return call


def _jitted(name, **keywords):
    """A function of JAX's, compiled."""
    compiled = []

    def call(array):
        if not compiled:
            import jax  # it may be missing

            compiled.append(jax.jit(partial(getattr(jax.numpy, name), **keywords)))
        return compiled[0](array)

    return call


def _summed(array):
    import numexpr as ne  # it may be missing

    ne.set_num_threads(WORKERS)
    return ne.evaluate("sum(x)", {"x": array}, {})


def _sorted(array):
    return array.sort().values


def _blurred_by_us(array):
    new = sc.SharedArray.empty(array.shape, array.dtype)
    sc.parallel_apply(blur_rows, new, sc.halo(array, 1, boundary="edge"), backend="threads")
    return new


def _blurred_by_prange(array):
    new = np.empty_like(array)
    blur_prange(new, array)
    return new


def numbers():
    """The array of all jobs but the blur."""
    return np.random.default_rng(0).random(ELEMENTS)


def whole_numbers():
    """That of `bincount`."""
    return (numbers() * 1000).astype(np.int64)


def image():
    """That of the blur."""
    return np.random.default_rng(0).random((SIDE, SIDE), np.float32)


class Job(NamedTuple):
    """What is to be done, and who can."""

    data: Callable[[], Any]
    ways: list[Way]


def _numpys(name, *args):
    """NumPy's function, and ours, which NumPy finds for a SharedArray."""
    function = getattr(np, name)

    def both(array):
        return function(array, *args)

    return [Way("shmcompute", both), Way("NumPy", both)]


JOBS = {
    "sum": Job(
        numbers,
        [
            *_numpys("sum"),
            Way("Numba prange", prange_sum),
            Way("numexpr", _summed),
            Way("bottleneck", _of("bottleneck", "nansum")),
            Way("numbagg", _of("numbagg", "nansum")),
            Way("JAX", _jitted("sum")),
            Way("torch", _of("torch", "sum")),
        ],
    ),
    "standard deviation": Job(
        numbers,
        [
            *_numpys("std"),
            Way("bottleneck", _of("bottleneck", "nanstd")),
            Way("numbagg", _of("numbagg", "nanstd", ddof=0)),
            Way("JAX", _jitted("std")),
            Way("torch", _of("torch", "std", correction=0)),
        ],
    ),
    "argmax": Job(
        numbers,
        [
            *_numpys("argmax"),
            Way("Numba prange", prange_argmax),
            Way("bottleneck", _of("bottleneck", "nanargmax")),
            Way("JAX", _jitted("argmax")),
            Way("torch", _of("torch", "argmax")),
        ],
    ),
    "cumsum": Job(
        numbers,
        [
            *_numpys("cumsum"),
            Way("JAX", _jitted("cumsum")),
            Way("torch", _of("torch", "cumsum", 0)),
        ],
    ),
    "sort": Job(numbers, [*_numpys("sort"), Way("JAX", _jitted("sort")), Way("torch", _sorted)]),
    "argsort": Job(
        numbers,
        [
            *_numpys("argsort"),
            Way("JAX", _jitted("argsort")),
            Way("torch", _of("torch", "argsort")),
        ],
    ),
    "median": Job(
        numbers,
        [
            *_numpys("median"),
            Way("bottleneck", _of("bottleneck", "median")),
            Way("JAX", _jitted("median")),
        ],
    ),
    "histogram": Job(
        numbers,
        [
            Way("shmcompute", lambda array: np.histogram(array, BINS)[0]),
            Way("NumPy", lambda array: np.histogram(array, BINS)[0]),
            Way("JAX", lambda array: _of("jax.numpy", "histogram", BINS)(array)[0]),
            Way("torch", _of("torch", "histc", BINS)),
        ],
    ),
    "bincount": Job(
        whole_numbers,
        [
            *_numpys("bincount"),
            Way("JAX", _jitted("bincount", length=1000)),
            Way("torch", _of("torch", "bincount")),
        ],
    ),
    "blur": Job(
        image,
        [
            Way("shmcompute", _blurred_by_us),
            Way("Numba prange", _blurred_by_prange),
            Way("SciPy", _of("scipy.ndimage", "uniform_filter", 3, mode="nearest")),
        ],
    ),
}

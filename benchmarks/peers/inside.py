"""Peers that stay inside this process: its threads, or none."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial

import numba as nb
import numpy as np

from benchmarks import kernels
from benchmarks.peers.ready import Ready
from benchmarks.settings import PIECES, WORKERS


@contextmanager
def numpy():
    yield lambda job: _alone(job, job.numpy)


@contextmanager
def serial():
    """The kernel, called on the whole array."""
    yield lambda job: _alone(job, job.kernel)


def _alone(job, function):
    array = np.empty(job.shape)
    return nullcontext(Ready(array, partial(function, array)))


@contextmanager
def granted_threads():
    """Numba counts the cores that affinity grants, but knows nothing of a cgroup's quota."""
    before = nb.get_num_threads()
    nb.set_num_threads(min(WORKERS, before))
    try:
        yield
    finally:
        nb.set_num_threads(before)


@contextmanager
def prange():
    with granted_threads():
        yield lambda job: _alone(job, kernels.parallel(job.kernel))


@contextmanager
def prange_chunks():
    """With smaller chunks than one a thread, as Numba recommends where work is uneven."""
    with granted_threads():
        yield lambda job: _alone(job, _in_chunks(kernels.parallel(job.kernel)))


def _in_chunks(kernel):
    def run(array):
        with nb.parallel_chunksize(len(array) // (WORKERS * PIECES)):
            kernel(array)

    return run


@contextmanager
def numexpr():
    import numexpr as ne

    before = ne.set_num_threads(WORKERS)
    yield lambda job: _alone(job, _evaluated(ne, job.expressions))
    ne.set_num_threads(before)


def _evaluated(ne, expressions):
    """`re_evaluate` repeats the last expression without looking at it again."""

    def run(array):
        ne.evaluate(expressions[0], {"x": array}, {}, out=array)
        for _ in expressions[1:]:
            ne.re_evaluate({"x": array}, {})

    return run


@contextmanager
def threads():
    """With kernels that let go of the GIL, where they can."""
    with ThreadPoolExecutor(WORKERS) as executor:

        def ready(job):
            array = np.empty(job.shape)
            kernel = kernels.nogil(job.kernel)
            parts = [array[start:stop] for start, stop in job.chunks]
            return nullcontext(Ready(array, lambda: list(executor.map(kernel, parts))))

        yield ready

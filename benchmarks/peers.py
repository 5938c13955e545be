"""The peers: ways to run a job again and again.

Each is a context that yields an array, for the caller to fill, and a function that runs the job on
it in place. Whatever can be done before the first run is, as a careful user would: processes are
started, memory is mapped, kernels are compiled.
"""

import multiprocessing
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks import stdlib_worker
from shmcompute import config, cores

WORKERS = cores.granted()
START = 60.0  # seconds until workers that are not there will not come


class Peer(NamedTuple):
    array: np.ndarray
    run: Callable[[], Any]


@contextmanager
def numpy(job):
    array = np.empty(job.shape)
    yield Peer(array, partial(job.numpy, array))


@contextmanager
def numba(job):
    array = np.empty(job.shape)
    yield Peer(array, partial(job.kernel, array))


@contextmanager
def prange(job):
    array = np.empty(job.shape)
    # Numba counts the cores that affinity grants, but knows nothing of a cgroup's quota.
    before = nb.get_num_threads()
    nb.set_num_threads(min(WORKERS, before))
    try:
        yield Peer(array, partial(job.prange, array))
    finally:
        nb.set_num_threads(before)


@contextmanager
def pool_shared_memory(job):
    """Workers attach by name once; two numbers are sent a chunk."""
    memory = SharedMemory(create=True, size=job.data.nbytes)
    try:
        array = np.ndarray(job.shape, buffer=memory.buf)
        chunks = _chunks(array)
        with _stdlib_pool(stdlib_worker.attach, job.name, memory.name) as pool:
            yield Peer(array, lambda: pool.starmap(stdlib_worker.run_attached, chunks, 1))
    finally:
        memory.close()
        memory.unlink()


@contextmanager
def pool_pickle(job):
    """Chunks travel to the workers and back."""
    array = np.empty(job.shape)
    parts = [array[start:stop] for start, stop in _chunks(array)]
    with _stdlib_pool(stdlib_worker.prepare, job.name) as pool:

        def run():
            for part, done in zip(parts, pool.map(stdlib_worker.run_sent, parts, 1), strict=True):
                part[...] = done

        yield Peer(array, run)


@contextmanager
def apply(job, backend):
    """`parallel_apply`, as it is called again and again."""
    with _shared(job, backend) as (array, pool):
        yield Peer(array.array, partial(sc.parallel_apply, job.kernel, array, pool=pool))


@contextmanager
def plan(job, backend):
    """The same call, bound once."""
    with _shared(job, backend) as (array, pool):
        yield Peer(array.array, sc.plan(job.kernel, array, pool=pool))


@contextmanager
def _shared(job, backend):
    with sc.Pool(WORKERS, backend=backend) as pool, sc.SharedArray.empty(job.shape) as array:
        yield array, pool.ready(START)


@contextmanager
def _stdlib_pool(initializer, *args):
    # Not fork, which the threads that Numba and others have started here would not survive.
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(WORKERS + 1)
    with context.Pool(WORKERS, initializer, (ready, *args)) as pool:
        ready.wait(START)
        yield pool
        pool.close()
        pool.join()


def _chunks(array):
    """One a worker: what `parallel_apply` makes by default."""
    edges = [len(array) * i // WORKERS for i in range(WORKERS + 1)]
    return list(pairwise(edges))


PEERS = {
    "numpy": numpy,
    "numba": numba,
    "numba prange": prange,
    "mp.Pool, SharedMemory": pool_shared_memory,
    "mp.Pool, pickle": pool_pickle,
    **{f"sc {backend}": partial(apply, backend=backend) for backend in config.BACKENDS},
    **{f"sc {backend}, plan": partial(plan, backend=backend) for backend in config.BACKENDS},
}
JITTED = {"numba", "numba prange"}  # of no use to a plain Python kernel


def peers_of(job):
    """Names of those that can do a job."""
    return [name for name in PEERS if job.prange is not None or name not in JITTED]

"""Ways to run a kernel for the first time, where everything else has run before."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks import tasks
from benchmarks.jobs import JOBS
from benchmarks.peers import inside, ours
from benchmarks.peers.ready import shared_memory
from benchmarks.settings import METHOD, WORKERS

JOB = JOBS["dispatch"]  # small: compiling is nearly all of it


@contextmanager
def _plain(compiled):
    array = np.empty(JOB.shape)
    with inside.granted_threads():
        yield array, lambda function: compiled(function)(array)


@contextmanager
def _threads():
    array = np.empty(JOB.shape)
    parts = [array[start:stop] for start, stop in JOB.chunks]
    with ThreadPoolExecutor(WORKERS) as executor:
        yield array, lambda function: list(executor.map(nb.njit(nogil=True)(function), parts))


@contextmanager
def _pool():
    with shared_memory(JOB.shape) as (name, array), get_context(METHOD).Pool(WORKERS) as pool:

        def call(function):
            kernel = nb.njit(function)
            work = [(kernel, name, JOB.shape, *chunk) for chunk in JOB.chunks]
            pool.starmap(tasks.run_kernel, work, 1)

        yield array, call


@contextmanager
def _executor():
    context = get_context(METHOD)
    with (
        shared_memory(JOB.shape) as (name, array),
        ProcessPoolExecutor(WORKERS, mp_context=context) as pool,
    ):

        def call(function):
            kernel = nb.njit(function)
            work = [(kernel, name, JOB.shape, *chunk) for chunk in JOB.chunks]
            list(pool.map(tasks.run_kernel, *zip(*work, strict=True)))

        yield array, call


@contextmanager
def _ours(**pool):
    with sc.Pool(WORKERS, **pool) as workers, sc.SharedArray.empty(JOB.shape) as array:
        workers.ready()
        yield (
            array.array,
            lambda function: sc.parallel_apply(nb.njit(function), array, pool=workers),
        )


# A context for each: it yields an array and what runs a Python function, jitted, on it.
FIRST_CALLS: dict[str, Callable[[], Any]] = {
    "serial": lambda: _plain(nb.njit),
    "Numba prange": lambda: _plain(nb.njit(parallel=True)),
    "ThreadPoolExecutor": _threads,
    "mp.Pool, SharedMemory": _pool,
    "ProcessPoolExecutor": _executor,
    **{f"shmcompute {name}": lambda pool=pool: _ours(**pool) for name, pool in ours.POOLS.items()},
}

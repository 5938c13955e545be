"""Peers that must be installed; ``pip install 'shmcompute[bench]'`` does.

Each is imported when it starts, and written as its own documentation recommends.
"""

import os
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np

from benchmarks import kernels, tasks
from benchmarks.peers.ready import Ready, shared_memory
from benchmarks.settings import ELEMENTS, METHOD, WORKERS


@contextmanager
def dask():
    """Its threaded scheduler. Delayed calls write in place: `dask.array` would copy in and out."""
    from dask import compute, delayed

    def ready(job):
        array = np.empty(job.shape)
        kernel = delayed(kernels.nogil(job.kernel), pure=False)
        calls = [kernel(array[start:stop]) for start, stop in job.chunks]
        run = lambda: compute(*calls, scheduler="threads", num_workers=WORKERS)  # noqa: E731
        return nullcontext(Ready(array, run))

    yield ready


@contextmanager
def joblib():
    """Workers write into a memory map, which joblib passes by its file's name."""
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    with Parallel(n_jobs=WORKERS) as parallel:

        @contextmanager
        def ready(job):
            with _memmap(job.shape) as array:
                parts = [array[start:stop] for start, stop in job.chunks]
                run_part = delayed(tasks.run_part)
                yield Ready(array, lambda: parallel(run_part(job.name, part) for part in parts))

        yield ready
    get_reusable_executor().shutdown(wait=True)


@contextmanager
def _memmap(shape):
    """In memory where there is a file system in it, as joblib's own are."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield np.memmap(Path(folder) / "array", "f8", "w+", shape=shape)


@contextmanager
def mpire():
    """Workers are kept alive between calls and attach to shared memory once."""
    from mpire import WorkerPool

    with WorkerPool(WORKERS, start_method=METHOD, keep_alive=True) as pool:

        @contextmanager
        def ready(job):
            with shared_memory(job.shape) as (name, array):
                work = [(job.name, name, job.shape, *chunk) for chunk in job.chunks]
                yield Ready(array, lambda: pool.map(tasks.run_attached, work, chunk_size=1))

        yield ready


@contextmanager
def ray():
    """Tasks read from the object store, where all is immutable, and return what they made."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    ray.init(
        num_cpus=WORKERS,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=max(128 << 20, 6 * 8 * ELEMENTS),
        runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[2])}},
    )
    run_copy = ray.remote(tasks.run_copy)

    def ready(job):
        array = np.empty(job.shape)
        parts = [array[start:stop] for start, stop in job.chunks]

        def run():
            results = ray.get([run_copy.remote(job.name, part) for part in parts])
            for part, done in zip(parts, results, strict=True):
                part[...] = done

        return nullcontext(Ready(array, run))

    try:
        yield ready
    finally:
        ray.shutdown()

"""shmcompute itself."""

from contextlib import contextmanager
from functools import partial

import shmcompute as sc
from benchmarks.kernels import CHAIN
from benchmarks.peers.ready import Ready
from benchmarks.settings import WORKERS

POOLS = {
    "processes": {"backend": "processes"},
    "processes, caller_runs": {"backend": "processes", "caller_runs": True},
    "threads": {"backend": "threads"},
    "serial": {"backend": "serial"},
}


def ways():
    """Name, start and what it is able to do."""
    for name, pool in POOLS.items():
        yield f"shmcompute {name}", partial(apply, **pool), lambda job: True
    for name, pool in POOLS.items():
        start = partial(plan, **pool)
        yield f"shmcompute {name}, plan()", start, lambda job: job.name == "dispatch"
    static = partial(apply, "static", backend="processes")
    yield "shmcompute processes, static", static, lambda job: job.uneven


@contextmanager
def apply(schedule=None, **pool):
    """`parallel_apply`, as it is called again and again."""
    with sc.Pool(WORKERS, **pool) as workers:

        @contextmanager
        def ready(job):
            how = schedule or ("dynamic" if job.uneven else "static")
            with sc.SharedArray.empty(job.shape) as array:
                call = partial(sc.parallel_apply, job.kernel, array, schedule=how, pool=workers)
                yield Ready(array.array, call)

        yield ready


@contextmanager
def plan(**pool):
    """The same call, bound once."""
    with sc.Pool(WORKERS, **pool) as workers:

        @contextmanager
        def ready(job):
            with sc.SharedArray.empty(job.shape) as array:
                yield Ready(array.array, sc.plan(job.kernel, array, pool=workers))

        yield ready


def chain(array, pool):
    """All the kernels of the chain, while a block is in the cache."""
    sc.parallel_apply(list(CHAIN), array, pool=pool)

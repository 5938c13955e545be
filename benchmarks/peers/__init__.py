"""The peers: ways to run a job again and again.

Each starts as a careful user would start it, once: a context that yields a function, `ready`.
``ready(job)`` is a context too: its array is for the caller to fill, its `run` does the job on it
in place. Whatever can be done before the first run is: processes are started, memory is mapped,
kernels are compiled.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import NamedTuple

from benchmarks.jobs import Job
from benchmarks.peers import inside, libraries, ours, stdlib
from benchmarks.peers.ready import Ready

Start = Callable[[], AbstractContextManager[Callable[[Job], AbstractContextManager[Ready]]]]


class Peer(NamedTuple):
    """One row of the comparison."""

    start: Start
    module: str | None = None  # what must be installed
    able: Callable[[Job], bool] = lambda job: True

    @property
    def missing(self):
        """Whether what it needs is not installed."""
        return self.module is not None and find_spec(self.module) is None


def _jitted(job):
    return job.jitted


def _peers() -> Iterator[tuple[str, Peer]]:
    yield "NumPy", Peer(inside.numpy)
    yield "serial", Peer(inside.serial)
    yield "Numba prange", Peer(inside.prange, able=_jitted)
    yield "Numba prange, chunks", Peer(inside.prange_chunks, able=lambda job: job.uneven)
    yield "numexpr", Peer(inside.numexpr, "numexpr", lambda job: bool(job.expressions))
    yield "ThreadPoolExecutor", Peer(inside.threads)
    yield "Process a task", Peer(stdlib.process_a_task)
    yield "mp.Pool, pickled", Peer(stdlib.pool_pickled)
    yield "mp.Pool, SharedMemory", Peer(stdlib.pool_shared_memory)
    yield "mp.Pool, mp.Array", Peer(stdlib.array)
    yield "mp.Manager", Peer(stdlib.manager)
    yield "mp.Queue", Peer(stdlib.queue)
    yield "mp.Pipe", Peer(stdlib.pipe)
    yield "ProcessPoolExecutor", Peer(stdlib.executor)
    yield "Dask threads", Peer(libraries.dask, "dask")
    yield "joblib", Peer(libraries.joblib, "joblib")
    yield "mpire", Peer(libraries.mpire, "mpire")
    yield "Ray", Peer(libraries.ray, "ray")
    yield from ((name, Peer(start, able=able)) for name, start, able in ours.ways())


PEERS = dict(_peers())

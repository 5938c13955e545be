"""``python -m benchmarks.startup PEER``: seconds from nothing to the first result.

Modules are imported before; workers start, memory is made and the kernel is compiled in that time.
"""

import subprocess
import sys
import time
from importlib import import_module
from multiprocessing import get_start_method

import numpy as np

from benchmarks.jobs import JOBS
from benchmarks.peers import PEERS
from benchmarks.settings import ENVIRONMENT

STARTS = (
    "serial",
    "Numba prange",
    "ThreadPoolExecutor",
    "Process a task",
    "mp.Pool, SharedMemory",
    "ProcessPoolExecutor",
    "Dask threads",
    "joblib",
    "mpire",
    "Ray",
    "shmcompute processes",
    "shmcompute processes, caller_runs",
    "shmcompute threads",
)


def seconds(name):
    """Of a start in a process of its own, with two workers."""
    settings = {"SHMCOMPUTE_BENCH_WORKERS": "2", "SHMCOMPUTE_BENCH_METHOD": get_start_method()}
    command = [sys.executable, "-m", "benchmarks.startup", name]
    done = subprocess.run(
        command, env=ENVIRONMENT | settings, check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.split()[-1])


def _first_result(name):
    peer, job = PEERS[name], JOBS["dispatch"]
    if peer.module is not None:
        import_module(peer.module)
    expected = job.expected
    began = time.perf_counter()
    with peer.start() as ready, ready(job) as made:
        made.array[...] = job.data
        made.run()
        took = time.perf_counter() - began
        assert np.array_equal(made.array, expected)
    return took


if __name__ == "__main__":
    print(_first_result(sys.argv[1]))

"""Process a `.npy` file that does not fit into the memory this program may take."""

import os
import sys
import tempfile

import numba as nb
import numpy as np
import psutil

import shmcompute as sc

MIB = 1 << 20
SAMPLES, ROOM = 256 * MIB // 8, 96 * MIB


@nb.njit
def record(trace, drift, start):
    for i in range(trace.size):
        trace[i] = np.sin(1e-3 * (start + i)) + drift * (start + i)


@nb.njit
def detrend(trace, drift, start):
    for i in range(trace.size):
        trace[i] -= drift * (start + i)


def limit_memory(pid):
    """Let a process take no more than ROOM beyond what it has; mapped files do not count."""
    process = psutil.Process(pid)
    limit = process.memory_info().data + ROOM
    process.rlimit(psutil.RLIMIT_DATA, (limit, limit))


if sys.platform != "linux":
    print("skipped: only Linux counts all anonymous memory towards RLIMIT_DATA")
    sys.exit()

with sc.Pool() as pool, tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/seismogram.npy"
    with sc.SharedArray.empty(SAMPLES, name=path, storage="file") as trace:
        sc.parallel_apply(record, trace, 1e-6, sc.offset, pool=pool)
        print(f"recorded: {trace.nbytes // MIB} MiB; memory left: {ROOM // MIB} MiB")

    # Workers too: nobody can hold the file, but everybody can map it.
    for pid in [os.getpid(), *pool.pids]:
        limit_memory(pid)
    try:
        np.load(path)
        raise AssertionError("the limit does not hold")
    except MemoryError as error:
        print("np.load: MemoryError:", error)

    with sc.SharedArray.open(path) as trace:
        sc.parallel_apply(detrend, trace, 1e-6, sc.offset, pool=pool)
        some = np.arange(0, SAMPLES, 10_007)
        assert np.allclose(trace[some], np.sin(1e-3 * some))
        print("detrended in place:", trace[some][:3], "...")

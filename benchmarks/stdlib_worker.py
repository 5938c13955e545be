"""What runs in the workers of the standard library's pools: importable, so that spawn finds it."""

from multiprocessing.shared_memory import SharedMemory

import numpy as np

from benchmarks.jobs import JOBS

_kept = {}  # for the life of the worker: the kernel, the mapping and the array in it


def prepare(ready, name):
    """Compile the kernel, then wait for the others, so that no worker is late for the first run."""
    job = JOBS[name]
    job.kernel(job.sample)
    _kept["kernel"] = job.kernel
    ready.wait()


def attach(ready, name, segment):
    """Map the array before `prepare`."""
    memory = _kept["memory"] = SharedMemory(segment)
    _kept["array"] = np.ndarray(JOBS[name].shape, buffer=memory.buf)
    prepare(ready, name)


def run_attached(start, stop):
    """Run the kernel on a part of the array."""
    _kept["kernel"](_kept["array"][start:stop])


def run_sent(part):
    """Run the kernel on what came, and send it back."""
    _kept["kernel"](part)
    return part

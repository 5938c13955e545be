"""What runs in the workers of other libraries: importable, so that spawned processes find it."""

from multiprocessing.shared_memory import SharedMemory

import numpy as np

from benchmarks.jobs import JOBS

_kept = {}  # for the life of the worker: mappings by name, and what an initializer left


def keep(name, value):
    """For the initializer of a pool."""
    _kept[name] = value


def run_part(job, part):
    """Run the kernel on memory that is shared already."""
    JOBS[job].kernel(part)


def run_sent(job, part):
    """Run the kernel on what came, and send it back."""
    JOBS[job].kernel(part)
    return part


def run_copy(job, part):
    """Run the kernel on a copy of what came, which may be read-only, and send it back."""
    return run_sent(job, part.copy())


def run_attached(job, segment, shape, start, stop):
    """Run the kernel on a part of shared memory, which is mapped once."""
    run_kernel(JOBS[job].kernel, segment, shape, start, stop)


def run_kernel(kernel, segment, shape, start, stop):
    """Run a kernel that came with the task."""
    kernel(_attached(segment, shape)[start:stop])


def run_inherited(job, start, stop):
    """Run the kernel on a part of the `multiprocessing.Array` that `keep` got."""
    shape = JOBS[job].shape
    whole = np.frombuffer(_kept["array"], count=int(np.prod(shape))).reshape(shape)
    JOBS[job].kernel(whole[start:stop])


def run_managed(job, index):
    """Run the kernel on an item of the manager's list that `keep` got."""
    parts = _kept["parts"]
    parts[index] = run_sent(job, parts[index])


def serve_pipe(connection):
    """Answer what comes through a pipe until it ends."""
    try:
        while True:
            connection.send(run_sent(*connection.recv()))
    except EOFError:
        return


def serve_queue(tasks, results):
    """Answer what comes through a queue until None does."""
    for index, job, part in iter(tasks.get, None):
        results.put((index, run_sent(job, part)))


def _attached(segment, shape):
    if segment not in _kept:
        memory = SharedMemory(segment)
        _kept[segment] = memory, np.ndarray(shape, buffer=memory.buf)
    return _kept[segment][1]

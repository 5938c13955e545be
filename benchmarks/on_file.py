"""``python -m benchmarks.on_file WAY FILE``: what a pass over a `.npy` file in place takes.

It prints the seconds until all is on disk. `within` runs it in a control group of its own, which
limits its memory, the pages of the file included.
"""

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks.settings import WORKERS

BLOCK = 1 << 21  # elements that a loop by hand takes at once: 16 MiB
CHUNK = 1 << 17  # those that all kernels of a chain go over, one after another: 1 MiB
ROOT = Path("/sys/fs/cgroup")


@nb.njit(nogil=True)
def halve(x):
    for i in range(x.size):
        x[i] = x[i] * 0.5 + 1.0


@nb.njit(nogil=True)
def shift(x):
    for i in range(x.size):
        x[i] -= 0.25


@nb.njit(nogil=True)
def square(x):
    for i in range(x.size):
        x[i] *= x[i]


@nb.njit(nogil=True)
def root(x):
    for i in range(x.size):
        x[i] = np.sqrt(x[i])


CHAIN = [halve, shift, square, root]


def by_hand(path, _):
    """A memory map, gone through block by block."""
    array = np.load(path, mmap_mode="r+")
    for start in range(0, array.size, BLOCK):
        halve(array[start : start + BLOCK])
    array.flush()


def _in_place(path, pool, calls_of, **options):
    """What is asked of the array, and then that all is on disk."""
    with sc.SharedArray.open(path) as array:
        for call in calls_of(array):
            sc.parallel_apply(*call, pool=pool, **options)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _one(array):
    return [(halve, array)]


def _four(array):
    return [(kernel, array) for kernel in CHAIN]


def _chained(array):
    return [(_four(array),)]


WAYS = {
    "memmap loop": by_hand,
    "shmcompute": lambda path, pool: _in_place(path, pool, _one),
    "four calls": lambda path, pool: _in_place(path, pool, _four),
    "a chain": lambda path, pool: _in_place(path, pool, _chained, chunksize=CHUNK),
}


def within(limit, way, path):
    """Seconds of a way in a group that may have so many bytes; its file is not in memory before."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    command = [sys.executable, "-m", "benchmarks.on_file", way, str(path)]
    with group(limit) as members:
        enter = 'echo $$ > "$0" && exec "$@"'
        started = ["sh", "-c", enter, str(members), *command]
        done = subprocess.run(started, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.split()[-1])


@contextmanager
def group(limit):
    """A new control group below ours; the file that lists who is in it.

    Raises
    ------
    OSError
        If none may be made.
    """
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    known = {line.split(":")[1]: line.split(":")[2] for line in lines}
    if "memory" in known:
        parent, name = ROOT / "memory" / known["memory"].lstrip("/"), "memory.limit_in_bytes"
    else:
        parent, name = ROOT / known[""].lstrip("/"), "memory.max"
    made = parent / f"shmcompute_bench_{os.getpid()}"
    made.mkdir()
    try:
        (made / name).write_text(str(limit))
        yield made / "cgroup.procs"
    finally:
        _remove(made)


def _remove(made):
    for _ in range(100):
        try:
            made.rmdir()
        except OSError:  # its last process is going
            time.sleep(0.1)
        else:
            return


def main(way, path):
    warm = np.ones(4)
    for kernel in CHAIN:
        kernel(warm)
    with sc.Pool(WORKERS, backend="processes") as pool:
        with sc.SharedArray(warm) as some:
            sc.parallel_apply(halve, some, pool=pool.ready(60))
        began = time.perf_counter()
        WAYS[way](path, pool)
        print(time.perf_counter() - began)


if __name__ == "__main__":
    main(*sys.argv[1:])

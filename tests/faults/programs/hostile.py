"""``hostile.py SEED``: all features where the system gives little; run by root in a namespace.

Prints a line for each: its name, ``right``, ``wrong``, or the name of the error, and whether that
is a typed one.
"""

import os
import random
import resource
import subprocess
import sys
import warnings

warnings.simplefilter("ignore")

import numpy as np  # noqa: E402

import shmcompute as sc  # noqa: E402

TYPED = sc.errors.ShmComputeError, MemoryError


def no_shm(_):
    _mount("-o", "size=4k,nr_inodes=1", at="/dev/shm")


def small_shm(dice):
    _mount("-o", f"size={dice.choice([4, 64, 1024])}k", at="/dev/shm")


def read_only_shm(_):
    _mount("-o", "ro", at="/dev/shm")


def no_temporary(_):
    os.environ["TMPDIR"] = "/nowhere"
    for place in ("/tmp", "/var/tmp"):
        _mount("-o", "ro", at=place)


def long_temporary(_):
    os.environ["TMPDIR"] = path = "/tmp/" + "long/" * 40
    os.makedirs(path, exist_ok=True)


def few_files(dice):
    _limit(resource.RLIMIT_NOFILE, dice.choice([24, 40, 64]))


def small_files(dice):
    _limit(resource.RLIMIT_FSIZE, dice.choice([0, 1 << 12, 1 << 20]))


def little_memory(dice):
    _limit(resource.RLIMIT_AS, dice.choice([3, 4]) << 30)


def no_locked_memory(_):
    _limit(resource.RLIMIT_MEMLOCK, 0)


HARDSHIPS = [
    no_shm,
    small_shm,
    read_only_shm,
    no_temporary,
    long_temporary,
    few_files,
    small_files,
    little_memory,
    no_locked_memory,
]


def _limit(what, value):
    resource.setrlimit(what, (value, value))


def _mount(*options, at):
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", at], check=True)


def add(x):
    """A kernel in Python."""
    x += 1


def small():
    with sc.SharedArray(np.ones(8)) as arr:
        sc.parallel_apply(add, arr, timeout=60)
        return (arr.array == 2).all()


def large():
    with sc.SharedArray(np.ones(1 << 18)) as arr:
        sc.parallel_apply(add, arr, backend="threads")
        return (arr.array == 2).all()


def tasks():
    with sc.Pool(2) as pool:
        return list(pool.map(abs, [-1, -2], timeout=60)) == [1, 2]


def queue():
    with sc.ArrayQueue(2, "f8", 2) as line:
        line.put([1.0, 2.0])
        return line.get(timeout=60).tolist() == [1, 2]


def lock():
    with sc.SharedArray(np.ones(8)) as arr, arr.lock(timeout=60):
        return True


def main(seed):
    """One or two hardships, then each feature."""
    dice = random.Random(seed)
    for hardship in dice.sample(HARDSHIPS, dice.randint(1, 2)):
        hardship(dice)
    for step in dice.sample([small, large, tasks, queue, lock], 5):
        try:
            print(step.__name__, "right" if step() else "wrong", 1, flush=True)
        except Exception as error:  # noqa: BLE001  # which one, is what is asked
            print(step.__name__, type(error).__name__, int(isinstance(error, TYPED)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

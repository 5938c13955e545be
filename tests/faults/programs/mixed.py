"""``mixed.py SECONDS``: uses all there is, over and over, and looks now and then at what it holds.

Prints a JSON object for each look: seconds since the start, and for the program and its workers
together or one by one what should not grow.
"""

import gc
import json
import logging
import os
import random
import sys
import tempfile
import threading
import time
from contextlib import suppress

import leaks
import numba as nb
import numpy as np
import psutil

import shmcompute as sc

logging.getLogger("shmcompute").setLevel(logging.ERROR)  # it warns of each worker that dies

LOOK = 2.0  # seconds between two looks
WARM = 700  # turns before the first, in which every kernel is compiled for every pool


@nb.njit
def affine(x, a, b):
    for i in range(x.size):
        x[i] = x[i] * a + b


@nb.njit
def fails(x):
    if x[0] == 1.0:
        raise ValueError("one")


def python(x):
    x += 1.0


def sleeps(x):
    time.sleep(60)


def dies_once(flag):
    parent = os.getpid()

    def kernel(x, start):
        x += 1.0
        if start == 0 and os.getpid() != parent and os.path.exists(flag):
            os.unlink(flag)
            os._exit(3)

    return kernel


class Mixed:
    """One of each kind of pool; `hurt` is the one whose workers are lost."""

    def __init__(self, dice, folder):
        self.dice, self.folder = dice, folder
        self.steady = sc.Pool(2).ready()
        self.hurt = sc.Pool(2).ready()
        caller, threads = sc.Pool(2, caller_runs=True).ready(), sc.Pool(2, backend="threads")
        self.pools = [self.steady, caller, threads, sc.Pool(1, backend="serial")]

    def array(self):
        storage = self.dice.choice(["auto", "shm", "array", "file"])
        name = f"{self.folder}/{self.dice.random()}.npy" if storage == "file" else None
        size = int(2 ** self.dice.uniform(0, 19))
        return sc.SharedArray.full(size, 1.0, storage=storage, name=name)

    def calls(self):
        pool, schedule = self.dice.choice(self.pools), self.dice.choice(["static", "dynamic"])
        with self.array() as arr:
            sc.parallel_apply(affine, arr, 3.0, 1.0, pool=pool, schedule=schedule)
            sc.parallel_apply(np.sqrt, arr, pool=pool, chunksize=max(1, arr.size // 5))
            sc.parallel_apply(python, arr.array[::2], pool=pool)
            assert (arr.array[::2] == 3.0).all()
            assert (arr.array[1::2] == 2.0).all()

    def chains(self):
        with self.array() as arr, self.array() as other:
            pool = self.dice.choice(self.pools)
            step = sc.plan([np.negative, (affine, arr, 2.0, 0.0), np.square], arr, pool=pool)
            for _ in range(3):
                arr[:] = 1.0
                step()
            assert (arr.array == 4.0).all()
            sc.parallel_apply(affine, other, 2.0, 0.0, pool=pool, retries=2)
            assert (other.array == 2.0).all()

    def errors(self):
        with self.array() as arr, suppress(ValueError):
            sc.parallel_apply(fails, arr, pool=self.dice.choice(self.pools))
            raise AssertionError("no error came")

    def attached(self):
        with sc.SharedArray.zeros(1000, storage="shm") as arr:
            other = sc.SharedArray.attach(arr.name)
            sc.parallel_apply(python, other, pool=self.steady)
            assert (arr.array == 1.0).all()
            self.dice.choice([other.close, gc.collect])()

    def dropped(self):
        arr = self.array()
        view = arr.array[: arr.size // 2 + 1]
        sc.parallel_apply(python, view, pool=self.steady)
        del arr
        assert (view == 2.0).all()

    def overrun(self):
        with self.array() as arr, suppress(sc.errors.KernelTimeoutError):
            sc.parallel_apply(sleeps, arr, timeout=0.05, pool=self.hurt)
            raise AssertionError("no error came")

    def retried(self):
        flag = f"{self.folder}/alive"
        open(flag, "w").close()
        with self.array() as arr:
            sc.parallel_apply(dies_once(flag), arr, sc.offset, retries=2, pool=self.hurt)
            assert (arr.array == 2.0).all()

    def turn(self):
        often = [self.calls, self.chains, self.errors, self.attached, self.dropped]
        seldom = [self.overrun, self.retried]
        self.dice.choice(seldom if self.dice.random() < 0.02 else often)()

    def held(self):
        """What it holds, with nothing in use."""
        sc.shutdown()  # gives back what is kept warm
        gc.collect()
        self.hurt.ready()
        here, workers = psutil.Process(), [*map(psutil.Process, self.steady.pids)]
        processes = here.children(recursive=True)
        return {
            "memory": (_private(here) - _kept(here)) / 2**20,
            "memory of arenas": _kept(here) / 2**20,
            "memory of a worker": max(map(_private, workers)) / 2**20,
            "descriptors": len(leaks.descriptors()),
            "descriptors of workers": sum(worker.num_fds() for worker in workers),
            "threads": threading.active_count(),
            "threads of workers": sum(worker.num_threads() for worker in workers),
            "segments": len(leaks.held()["segments mapped"]),
            "names": len(leaks.names()),
            "processes": sum(each.status() != "zombie" for each in processes),
        }


def _private(process):
    return process.memory_full_info().uss


def _kept(process):
    """Bytes of the arenas that multiprocessing keeps for later arrays."""
    arenas = [part for part in process.memory_maps() if "/pym-" in part.path]
    return sum(part.private_clean + part.private_dirty for part in arenas)


def main(seconds):
    with tempfile.TemporaryDirectory() as folder:
        mixed = Mixed(random.Random(1), folder)
        for _ in range(WARM):
            mixed.turn()
        began = looked = time.monotonic()
        turns = 0
        while (now := time.monotonic()) < began + float(seconds):
            mixed.turn()
            turns += 1
            if now >= looked + LOOK:
                looked = now
                print(json.dumps({"at": now - began, "turns": turns, **mixed.held()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

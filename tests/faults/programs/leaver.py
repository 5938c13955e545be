"""``leaver.py SEED``: makes, uses, closes and drops things in an order of its own, and ends."""

import atexit
import gc
import os
import random
import sys
import tempfile
import threading

import numba as nb
import numpy as np

import shmcompute as sc

kept = []  # what it has, in a global, until the interpreter ends


@nb.njit
def affine(x):
    for i in range(x.size):
        x[i] = x[i] * 3.0 + 1.0


class Leaver:
    def __init__(self, dice, folder):
        self.dice, self.folder = dice, folder
        self.held = []

    def live(self, storages=("shm", "array", "file")):
        arrays = [one for one in self.held if isinstance(one, sc.SharedArray)]
        return [arr for arr in arrays if not arr.closed and arr.storage in storages]

    def array(self):
        storage = self.dice.choice(["shm", "shm", "array", "file", "auto"])
        name = f"{self.folder}/{self.dice.random()}.npy" if storage == "file" else None
        data = np.ones(self.dice.choice([1, 1000, 200_000]))
        try:
            return sc.SharedArray(data, storage=storage, name=name)
        except sc.errors.StorageError:
            if os.path.isdir(self.folder):
                raise
            return sc.SharedArray(data)  # the program ends, and has removed its folder

    def view(self):
        arrays = self.live()
        return self.dice.choice(arrays).array[::2] if arrays else self.array()

    def attached(self):
        arrays = self.live(["shm"])
        try:
            return sc.SharedArray.attach(self.dice.choice(arrays).name) if arrays else None
        except sc.errors.SegmentNotFoundError:  # it was unlinked
            return None

    def pool(self):
        backend = self.dice.choice(["processes", "processes", "threads", "serial"])
        method = self.dice.choice(["fork", "fork", "forkserver", "forkserver", "spawn"])
        return sc.Pool(self.dice.choice([1, 2]), backend=backend, start_method=method)

    def use(self):
        pools = [one for one in self.held if isinstance(one, sc.Pool)]
        arr = self.dice.choice(self.live() or [self.array()])
        kernel = self.dice.choice([affine, np.sqrt, lambda x: x.sort()])
        try:
            step = sc.plan(kernel, arr, pool=self.dice.choice(pools or [None]))
            step()
            return step
        except sc.errors.ShmComputeError:  # the pool was closed, or the array unlinked
            return None

    def lose(self):
        if self.held:
            one = self.held.pop(self.dice.randrange(len(self.held)))
            does = ["close", "__repr__", *(["unlink"] if getattr(one, "owner", False) else [])]
            getattr(one, self.dice.choice(does), lambda: None)()

    def close(self):
        closing = [one for one in self.held if hasattr(one, "close")]
        if closing:
            self.dice.choice(closing).close()

    def live_on(self):
        for _ in range(8):
            does = [self.array, self.array, self.view, self.attached, self.pool, self.use, self.use]
            self.held.append(self.dice.choice(does)())
            self.dice.choice([self.lose, self.close, gc.collect, lambda: None, lambda: None])()
        self.dice.shuffle(self.held)
        if self.dice.random() < 0.3:
            self.held.append(self)  # a cycle, for the collector
        if self.dice.random() < 0.3:
            atexit.register(self.use)
        if self.dice.random() < 0.3:
            threading.Thread(target=self.use).start()
        kept.extend(self.held[:: self.dice.choice([1, 2, 20])])


def main(seed):
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        leaver = Leaver(dice, folder)
        leaver.live_on()
        if dice.random() < 0.5:
            del leaver
        dice.choice([lambda: None, sys.exit, sc.shutdown])()


if __name__ == "__main__":
    main(*sys.argv[1:])

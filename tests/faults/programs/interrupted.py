"""``interrupted.py METHOD TIMES SEED``: is interrupted at random moments, once or by three at once.

Prints a line for each: seconds to KeyboardInterrupt, whether anybody wrote after it, whether the
next result was wrong.
"""

import os
import random
import signal
import sys
import threading
import time

import numba as nb
import numpy as np

import shmcompute as sc

LENGTH, CHUNK = 20_000, 1000


@nb.njit
def steps(x, count):
    for i in range(x.size):
        for _ in range(count):
            x[i] = x[i] * 0.5 + 1.0


@nb.njit
def endless(x, _):
    while x[0] >= 0:
        for i in range(x.size):
            x[i] += 1.0


def in_python(x, count):
    for _ in range(count):
        x *= 0.5
        x += 1.0


class Trial:
    """One or three interrupts of calls on a pool."""

    def __init__(self, pool, arr, dice):
        self.pool, self.arr, self.dice = pool, arr, dice
        self.sent, self.ended = [], []
        self.presser = threading.Thread(target=self._press, args=(dice.choice([1, 3]),))
        self.pressed = threading.Event()  # for join() of a thread, interrupted, forgets it

    def _press(self, times):
        time.sleep(self.dice.uniform(0, 0.02))  # the random moment
        self.sent.append(time.monotonic())
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.003)
        self.pressed.set()

    def run(self, levels=3):
        """The second and third may come anywhere, also where the first is looked after."""
        try:
            if levels:
                self.run(levels - 1)
            else:
                self._calls()
        except KeyboardInterrupt:
            self.ended.append(time.monotonic())
            self.pressed.wait()

    def _calls(self):
        kernel = self.dice.choice([steps, in_python, endless])
        count, schedule = self.dice.choice([1, 100, 3000]), self.dice.choice(["static", "dynamic"])
        options = {"chunksize": CHUNK, "schedule": schedule, "pool": self.pool}
        self.presser.start()
        while True:
            self.arr[:] = 1.0
            sc.parallel_apply(kernel, self.arr, count, **options)

    def told(self, expected):
        found = self.arr.array.copy()
        time.sleep(0.003)  # in which who still wrote would be seen
        writes = not np.array_equal(self.arr.array, found)
        self.arr[:] = 1.0
        sc.parallel_apply(in_python, self.arr, 7, pool=self.pool)
        wrong = not np.array_equal(self.arr.array, expected)
        return self.ended[0] - self.sent[0], int(writes), int(wrong)


def main(method, times, seed):
    dice, expected = random.Random(seed), np.ones(LENGTH)
    in_python(expected, 7)
    with sc.Pool(2, start_method=method) as pool, sc.SharedArray(np.ones(LENGTH)) as arr:
        pool.ready()
        arr[:] = -1.0  # `endless` ends
        for kernel in (endless, steps):  # what comes within LLVM's callbacks Python loses
            sc.parallel_apply(kernel, arr, 1, chunksize=CHUNK, pool=pool)
        for _ in range(int(times)):
            trial = Trial(pool, arr, dice)
            trial.run()
            print(*trial.told(expected), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""``compiling.py TIMES SEED``: a handler of a signal raises while kernels are compiled.

Prints a line for each: whether the next kernel did not compile, whether its result was wrong.
"""

import random
import signal
import sys

import numba as nb
import numpy as np

import shmcompute as sc


class Alarm(Exception):
    """What the handler raises."""


def ring(*_):
    raise Alarm


def kernel(number):
    """A kernel that was never compiled before."""

    @nb.njit
    def add(x):
        for i in range(x.size):
            x[i] += number

    return add


def main(times, seed):
    """Interrupt the first call of a kernel at a random moment; then call another one."""
    dice = random.Random(seed)
    signal.signal(signal.SIGALRM, ring)
    with sc.Pool(2) as pool, sc.SharedArray(np.zeros(64)) as arr:
        pool.ready()
        for number in range(times):
            backend = dice.choice([{"pool": pool}, {"backend": "threads"}, {"backend": "serial"}])
            try:
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0001, 0.15))
                sc.parallel_apply(kernel(number), arr, **backend)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except Exception:  # noqa: BLE001, S110  # or an error of ours with that as its cause
                pass
            broken = wrong = False
            arr[:] = 0
            try:
                sc.parallel_apply(kernel(number), arr, **backend)
                wrong = not (arr.array == number).all()
            except Exception:  # noqa: BLE001  # Numba's registries may be anything now
                broken = True
            print(int(broken), int(wrong), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

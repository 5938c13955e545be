"""``victim.py METHOD``: works on arrays for ever, in native loops without end and in short calls.

Prints two lines: the names of its segments, and the pids of all processes below it.
"""

import sys
import threading

import numba as nb
import numpy as np
import psutil

import shmcompute as sc


@nb.njit
def endless(x):
    while x[0] >= 0:
        for i in range(x.size):
            x[i] += 1


def main(method):
    small, large = (sc.SharedArray(np.ones(n), storage="shm") for n in (10, 300_000))
    sc.SharedArray(np.ones(200_000), storage="shm").close()  # kept warm
    other = sc.SharedArray(np.ones(300_000), storage="array")
    busy, quick = (sc.Pool(1, start_method=method).ready() for _ in range(2))
    threading.Thread(
        target=sc.parallel_apply, args=(endless, small), kwargs={"pool": busy}, daemon=True
    ).start()
    step = sc.plan([np.sqrt, (np.sqrt, other)], large, pool=quick)
    while small.array[0] < 5:
        step()
    print(small.name, large.name)
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    while True:
        step()
        sc.SharedArray(np.ones(1000), storage="shm").close()


if __name__ == "__main__":
    main(*sys.argv[1:])

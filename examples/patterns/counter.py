"""Four processes count to 40 000 together: `Value` with its lock, and two ways of ours."""

from multiprocessing import Process, Value

import numpy as np

import shmcompute as sc

TIMES = 10_000


def count(value):
    for _ in range(TIMES):
        with value.get_lock():
            value.value += 1


def count_locked(counter):
    for _ in range(TIMES):
        with counter.lock():  # a holder that is killed does not leave it held
            counter[0] += 1


def count_atomically(counter):
    for _ in range(TIMES):
        sc.atomic_add(counter, 0, 1)


def together(target, counter):
    processes = [Process(target=target, args=(counter,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":  # multiprocessing.Process needs this guard
    value = Value("q", 0)
    together(count, value)
    print(value.value)
    for target in (count_locked, count_atomically):
        with sc.SharedArray(np.zeros(1, int)) as counter:
            together(target, counter)
            print(counter[0])

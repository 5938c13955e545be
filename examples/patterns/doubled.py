"""An array that another process doubles in place: raw `SharedMemory`, and a `SharedArray`."""

from multiprocessing import Process
from multiprocessing.shared_memory import SharedMemory

import numpy as np

import shmcompute as sc


def double_raw(name, shape, dtype):
    memory = SharedMemory(name)
    array = np.ndarray(shape, dtype, buffer=memory.buf)
    array *= 2
    del array  # before its memory
    memory.close()


def double(array):
    array *= 2


def run(target, *args):
    process = Process(target=target, args=args)
    process.start()
    process.join()


def standard_library(data):
    memory = SharedMemory(create=True, size=data.nbytes)
    try:
        array = np.ndarray(data.shape, data.dtype, buffer=memory.buf)
        array[:] = data
        run(double_raw, memory.name, array.shape, array.dtype)
        print(array)
        del array
    finally:
        memory.close()
        memory.unlink()


def with_shmcompute(data):
    with sc.SharedArray(data) as array:
        run(double, array)  # it travels as a handle
        print(array.array)


if __name__ == "__main__":  # multiprocessing.Process needs this guard
    standard_library(np.arange(5))
    with_shmcompute(np.arange(5))

"""Numbers gathered from two processes: a `Queue` of lists, and an array that both write."""

from multiprocessing import Process, Queue

import numpy as np

import shmcompute as sc


def send(queue, numbers):
    queue.put(numbers)


def write(part, numbers):
    part[:] = numbers


def standard_library():
    queue = Queue()
    processes = [Process(target=send, args=(queue, part)) for part in ([1, 2, 3], [4, 5, 6])]
    for process in processes:
        process.start()
    gathered = [*queue.get(), *queue.get()]
    for process in processes:
        process.join()
    return sorted(gathered)


def with_shmcompute():
    with sc.SharedArray(np.zeros(6, int)) as gathered, sc.Pool(2) as pool:
        # Views of a SharedArray travel as handles: the workers write into this very memory.
        list(pool.map(write, [gathered[:3], gathered[3:]], [[1, 2, 3], [4, 5, 6]]))
        return gathered.array.tolist()


if __name__ == "__main__":  # the standard library's form needs this guard; ours does not
    print(standard_library())
    print(with_shmcompute())

"""A producer and a consumer: a `Queue` that pickles, and an `ArrayQueue` that does not.

A `Pipe` between two processes is the queue of one slot.
"""

from multiprocessing import Process, Queue

import numpy as np

import shmcompute as sc

FRAMES, SHAPE = 20, (64, 64)


def produce(queue):
    for number in range(FRAMES):
        queue.put(np.full(SHAPE, float(number)))
    queue.put(None)


def produce_in_place(queue):
    for number in range(FRAMES):
        with queue.reserve() as frame:  # a slot of the queue itself: nothing is copied
            frame[:] = number
    queue.close()


def received(queue):
    while (frame := queue.get()) is not None:
        yield frame


def standard_library():
    queue = Queue(4)
    producer = Process(target=produce, args=(queue,))
    producer.start()
    total = sum(frame.mean() for frame in received(queue))
    producer.join()
    return total


def with_shmcompute():
    with sc.ArrayQueue(SHAPE, float, slots=4) as queue:
        producer = Process(target=produce_in_place, args=(queue,))
        producer.start()
        total = sum(frame.mean() for frame in queue)  # until it is closed
        producer.join()
    return total


if __name__ == "__main__":  # multiprocessing.Process needs this guard
    print("sum of means:", standard_library())
    print("sum of means:", with_shmcompute())

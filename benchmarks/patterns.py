"""The standard library's patterns, in its usual form and in ours, on the same work.

Each way is a context: within it everyone is ready, and what it yields does the work once and
returns what must come of it.
"""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from typing import Any, NamedTuple

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks.settings import METHOD, SMOKE, WORKERS

CONTEXT = multiprocessing.get_context(METHOD)
TASKS = 200 if SMOKE else 10_000
COUNTERS, TIMES = 4, 100 if SMOKE else 10_000
KIB = 1 << 10


class Way(NamedTuple):
    """One way to do the work of a group."""

    start: Callable[[], AbstractContextManager[Callable[[], Any]]]
    expected: Any


def add_one(number):
    return number + 1


# Many small tasks


@contextmanager
def mapped(make, **options):
    """`map` of an executor."""
    with make() as executor:
        list(executor.map(add_one, range(100)))
        yield lambda: sum(executor.map(add_one, range(TASKS), **options))


@contextmanager
def lazily(make, chunksize):
    """`imap` of a pool."""
    with make() as pool:
        sum(pool.imap(add_one, range(100)))
        yield lambda: sum(pool.imap(add_one, range(TASKS), chunksize=chunksize))


OURS = partial(sc.Pool, WORKERS, start_method=METHOD)
THEIRS = partial(ProcessPoolExecutor, WORKERS, CONTEXT)


# A counter of several processes


def count_value(value, begin, done):
    for _ in iter(begin.get, None):
        for _ in range(TIMES):
            with value.get_lock():
                value.value += 1
        done.put(None)


def count_locked(counter, begin, done):
    for _ in iter(begin.get, None):
        for _ in range(TIMES):
            with counter.lock():
                counter[0] += 1
        done.put(None)


def count_atomically(counter, begin, done):
    for _ in iter(begin.get, None):
        for _ in range(TIMES):
            sc.atomic_add(counter, 0, 1)
        done.put(None)


@nb.njit
def many(counter, times):
    for _ in range(times):
        sc.atomic_add(counter, 0, 1)


def count_in_kernel(counter, begin, done):
    many(counter.array, 0)
    for _ in iter(begin.get, None):
        many(counter.array, TIMES)
        done.put(None)


@contextmanager
def _counting(target, counter, told):
    begin, done = CONTEXT.Queue(), CONTEXT.Queue()
    made = [CONTEXT.Process(target=target, args=(counter, begin, done)) for _ in range(COUNTERS)]
    for process in made:
        process.start()

    def count():
        before = told()
        for _ in made:
            begin.put(1)
        for _ in made:
            done.get()
        return told() - before

    try:
        count()
        yield count
    finally:
        for _ in made:
            begin.put(None)
        for process in made:
            process.join()


@contextmanager
def by_value():
    value = CONTEXT.Value("q", 0)
    with _counting(count_value, value, lambda: value.value) as count:
        yield count


@contextmanager
def by_array(target):
    with (
        sc.SharedArray(np.zeros(1, np.int64)) as counter,
        _counting(target, counter, lambda: int(counter.array[0])) as count,
    ):
        yield count


# A producer and a consumer


def put_all(queue, go, shape, items):
    array = np.ones(shape)
    while go.get():
        for _ in range(items):
            queue.put(array)


def send_all(connection, go, shape, items):
    array = np.ones(shape)
    while go.get():
        for _ in range(items):
            connection.send(array)


def reserve_all(queue, go, shape, items):
    while go.get():
        for _ in range(items):
            with queue.reserve() as slot:
                slot[:] = 1.0


@contextmanager
def _producing(target, channel, shape, items, take):
    go = CONTEXT.SimpleQueue()
    process = CONTEXT.Process(target=target, args=(channel, go, shape, items))
    process.start()

    def consume():
        go.put(True)
        return sum(take() for _ in range(items))

    try:
        consume()
        yield consume
    finally:
        go.put(False)
        process.join()


@contextmanager
def by_queue(shape, items):
    queue = CONTEXT.Queue(4)
    with _producing(put_all, queue, shape, items, lambda: queue.get()[-1]) as consume:
        yield consume


@contextmanager
def by_pipe(shape, items):
    ours, theirs = CONTEXT.Pipe(duplex=False)
    with _producing(send_all, theirs, shape, items, lambda: ours.recv()[-1]) as consume:
        yield consume


@contextmanager
def by_array_queue(shape, items):
    with (
        sc.ArrayQueue(shape, float, slots=4) as queue,
        _producing(put_all, queue, shape, items, lambda: queue.get()[-1]) as consume,
    ):
        yield consume


@contextmanager
def in_place(shape, items):
    def look():
        with queue.peek() as slot:
            return slot[-1]

    with (
        sc.ArrayQueue(shape, float, slots=4) as queue,
        _producing(reserve_all, queue, shape, items, look) as consume,
    ):
        yield consume


def queued(nbytes, items):
    """The ways for arrays of that size."""
    shape = (nbytes // 8,)
    kinds = {
        "mp.Queue": by_queue,
        "mp.Pipe": by_pipe,
        "shmcompute ArrayQueue, put and get": by_array_queue,
        "shmcompute ArrayQueue, reserve and peek": in_place,
    }
    return {name: Way(partial(way, shape, items), float(items)) for name, way in kinds.items()}


# An array that another process is to see


def received(connection):
    """What comes, until None does; arrays can't be compared with it."""
    while (found := connection.recv()) is not None:
        yield found


def last_of_sent(connection):
    for array in received(connection):
        connection.send(array[-1])


def last_of_raw(connection):
    for name, shape in received(connection):
        memory = SharedMemory(name)
        connection.send(np.ndarray(shape, buffer=memory.buf)[-1])
        memory.close()


def last_of_named(connection):
    for name in received(connection):
        array = sc.SharedArray.attach(name)
        connection.send(array[-1])
        array.close()


@contextmanager
def handed(target, hand):
    """The time from having an array to an answer about it; `hand` opens it and tells how."""
    with ExitStack() as opened:
        sent = hand(opened, np.ones(KIB if SMOKE else 8 << 20))
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=target, args=(theirs,))
        process.start()

        def ask():
            ours.send(sent)
            return ours.recv()

        try:
            ask()
            yield ask
        finally:
            ours.send(None)
            process.join()


def _raw(opened, data):
    memory = SharedMemory(create=True, size=data.nbytes)
    opened.callback(memory.unlink)
    opened.callback(memory.close)
    np.ndarray(data.shape, buffer=memory.buf)[:] = data
    return memory.name, data.shape


def _wrapped(opened, data):
    return opened.enter_context(sc.SharedArray(data))


def _named(opened, data):
    return _wrapped(opened, data).name


# From nothing to the first result


@contextmanager
def started(make):
    def first():
        with make() as executor:
            return executor.submit(add_one, 1).result()

    yield first


def _starts():
    for method in multiprocessing.get_all_start_methods():
        theirs = partial(ProcessPoolExecutor, 2, multiprocessing.get_context(method))
        yield f"ProcessPoolExecutor, {method}", Way(partial(started, theirs), 2)
        ours = partial(sc.Pool, 2, start_method=method)
        yield f"shmcompute processes, {method}", Way(partial(started, ours), 2)


_sum = sum(range(1, TASKS + 1))
_count = COUNTERS * TIMES
PATTERNS = {
    "tiny tasks": {
        "ProcessPoolExecutor": Way(partial(mapped, THEIRS), _sum),
        "ThreadPoolExecutor": Way(partial(mapped, partial(ThreadPoolExecutor, WORKERS)), _sum),
        "mp.Pool": Way(partial(lazily, partial(CONTEXT.Pool, WORKERS), 1), _sum),
        "shmcompute processes": Way(partial(mapped, OURS), _sum),
        "shmcompute threads": Way(
            partial(mapped, partial(sc.Pool, WORKERS, backend="threads")), _sum
        ),
    },
    "imap, chunks of 100": {
        "mp.Pool": Way(partial(lazily, partial(CONTEXT.Pool, WORKERS), 100), _sum),
        "ProcessPoolExecutor": Way(partial(mapped, THEIRS, chunksize=100), _sum),
        "shmcompute processes": Way(partial(lazily, OURS, 100), _sum),
    },
    "counter of four processes": {
        "mp.Value, its lock": Way(by_value, _count),
        "shmcompute lock": Way(partial(by_array, count_locked), _count),
        "shmcompute atomic_add": Way(partial(by_array, count_atomically), _count),
        "shmcompute atomic_add in a kernel": Way(partial(by_array, count_in_kernel), _count),
    },
    "queue of 1 KiB": queued(KIB, 100 if SMOKE else 5000),
    "queue of 1 MiB": queued(KIB if SMOKE else 1 << 20, 20 if SMOKE else 100),
    "queue of 64 MiB": queued(KIB if SMOKE else 64 << 20, 4),
    "hand-over of 64 MiB": {
        "pickled": Way(partial(handed, last_of_sent, lambda opened, data: data), 1.0),
        "SharedMemory by name": Way(partial(handed, last_of_raw, _raw), 1.0),
        "shmcompute, pickled handle": Way(partial(handed, last_of_sent, _wrapped), 1.0),
        "shmcompute, attach by name": Way(partial(handed, last_of_named, _named), 1.0),
    },
    "start to first task": dict(_starts()),
}

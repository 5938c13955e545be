"""What `bench` compares: the standard library's ways to have several processes work on an array.

Each is written as its documentation has it. All start by ``fork``, so that workers inherit the
compiled kernels: the others would import and compile for seconds before they are timed.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from shmcompute.apply import parallel_apply
from shmcompute.arrays import SharedArray
from shmcompute.cli.demo_kernels import TRIALS
from shmcompute.pool import Pool
from shmcompute.typing import Array

KERNELS = {trial.name: trial.kernel for trial in TRIALS}
REFERENCES = {trial.name: trial.reference for trial in TRIALS}
Bounds = Sequence[tuple[int, int]]
# An array, and what runs the kernel of a name on it, in place.
Ready = tuple[Array, Callable[[str], object]]
Peer = Callable[[int, int], AbstractContextManager[Ready]]  # of so many elements and workers

_kept: list[Any] = []  # in a worker: what it was given at its start


def _cut(count: int, workers: int) -> Bounds:
    edges = [count * number // workers for number in range(workers + 1)]
    return list(itertools.pairwise(edges))


def _compute(name: str, part: Array) -> Array:
    KERNELS[name](part)
    return part


def _gather(array: Array, bounds: Bounds, parts: Iterable[Array]) -> None:
    for (start, stop), part in zip(bounds, parts, strict=True):
        array[start:stop] = part


@contextmanager
def numpy_alone(count: int, _: int) -> Iterator[Ready]:
    """What the others are equal to, in this process."""
    array = np.empty(count)

    def run(name: str) -> None:
        array[:] = REFERENCES[name](array)

    yield array, run


@contextmanager
def shared_array(count: int, workers: int) -> Iterator[Ready]:
    """Ours, by worker processes."""
    with Pool(workers) as pool, SharedArray.empty(count) as array:
        pool.ready()
        yield array.array, lambda name: parallel_apply(KERNELS[name], array, pool=pool)


@contextmanager
def shared_array_threads(count: int, workers: int) -> Iterator[Ready]:
    """Ours, by threads."""
    with Pool(workers, backend="threads") as pool, SharedArray.empty(count) as array:
        pool.ready()
        yield array.array, lambda name: parallel_apply(KERNELS[name], array, pool=pool)


@contextmanager
def process(count: int, workers: int) -> Iterator[Ready]:
    """A new process for each task, on memory that it inherits."""
    context = multiprocessing.get_context("fork")
    array = np.frombuffer(context.RawArray("d", count))

    def run(name: str) -> None:
        parts = [array[start:stop] for start, stop in _cut(count, workers)]
        started = [context.Process(target=_compute, args=(name, part)) for part in parts]
        for one in started:
            one.start()
        for one in started:
            one.join()

    yield array, run


@contextmanager
def executor(count: int, workers: int) -> Iterator[Ready]:
    """Chunks travel to the workers and back."""
    array, bounds = np.empty(count), _cut(count, workers)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:

        def run(name: str) -> None:
            parts = [array[start:stop] for start, stop in bounds]
            _gather(array, bounds, pool.map(_compute, [name] * workers, parts))

        yield array, run


@contextmanager
def pool_of_processes(count: int, workers: int) -> Iterator[Ready]:
    """The same with `multiprocessing.Pool`."""
    array, bounds = np.empty(count), _cut(count, workers)
    with _pool(workers) as pool:

        def run(name: str) -> None:
            work = [(name, array[start:stop]) for start, stop in bounds]
            _gather(array, bounds, pool.starmap(_compute, work, 1))

        yield array, run


@contextmanager
def value_and_array(count: int, workers: int) -> Iterator[Ready]:
    """An Array that workers inherit; what is sent are names and numbers."""
    memory = multiprocessing.get_context("fork").Array("d", count, lock=False)
    with _pool(workers, np.frombuffer(memory)) as pool:
        work = _cut(count, workers)
        yield (
            np.frombuffer(memory),
            lambda name: pool.starmap(_compute_kept, [(name, *one) for one in work], 1),
        )


def _keep(value: Any) -> None:
    _kept[:] = [value]


def _compute_kept(name: str, start: int, stop: int) -> None:
    KERNELS[name](_kept[0][start:stop])


@contextmanager
def shared_memory(count: int, workers: int) -> Iterator[Ready]:
    """A block that workers attach by its name, once."""
    block = SharedMemory(create=True, size=8 * count)
    try:
        with _pool(workers) as pool:
            work = [(block.name, count, *one) for one in _cut(count, workers)]
            yield (
                np.ndarray(count, buffer=block.buf),
                lambda name: pool.starmap(_compute_attached, [(name, *one) for one in work], 1),
            )
    finally:
        block.close()  # of views that are left nobody makes use any more
        block.unlink()


def _compute_attached(name: str, block: str, count: int, start: int, stop: int) -> None:
    if not _kept:
        _kept.append(SharedMemory(block))
    array: Array = np.ndarray(count, buffer=_kept[0].buf)
    KERNELS[name](array[start:stop])


@contextmanager
def manager(count: int, workers: int) -> Iterator[Ready]:
    """Chunks are items of a list that a server process holds."""
    array, bounds = np.empty(count), _cut(count, workers)
    with multiprocessing.get_context("fork").Manager() as server:
        parts = server.list()
        with _pool(workers, parts) as pool:

            def run(name: str) -> None:
                parts[:] = [array[start:stop] for start, stop in bounds]
                pool.starmap(_compute_managed, [(name, index) for index in range(workers)], 1)
                _gather(array, bounds, parts[:])

            yield array, run


def _compute_managed(name: str, index: int) -> None:
    _kept[0][index] = _compute(name, _kept[0][index])


@contextmanager
def pipe(count: int, workers: int) -> Iterator[Ready]:
    """A worker at the end of each pipe."""
    array, bounds = np.empty(count), _cut(count, workers)
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(workers)]
    with _servers(_serve_pipe, [(theirs,) for _, theirs in pipes]):

        def run(name: str) -> None:
            for (ours, _), (start, stop) in zip(pipes, bounds, strict=True):
                ours.send((name, array[start:stop]))
            _gather(array, bounds, [ours.recv() for ours, _ in pipes])

        yield array, run
        for ours, _ in pipes:
            ours.send(None)
    for ends in pipes:
        for end in ends:
            end.close()


def _serve_pipe(end: Any) -> None:
    while (task := end.recv()) is not None:
        end.send(_compute(*task))


@contextmanager
def queue(count: int, workers: int) -> Iterator[Ready]:
    """Workers take chunks from one queue and put them into another."""
    array, bounds = np.empty(count), _cut(count, workers)
    context = multiprocessing.get_context("fork")
    to_do, done = context.Queue(), context.Queue()
    with _servers(_serve_queue, [(to_do, done)] * workers):

        def run(name: str) -> None:
            for index, (start, stop) in enumerate(bounds):
                to_do.put((index, name, array[start:stop]))
            parts = dict(done.get() for _ in bounds)
            _gather(array, bounds, [parts[index] for index in range(workers)])

        yield array, run
        for _ in range(workers):
            to_do.put(None)
    for one in (to_do, done):
        one.close()
        one.join_thread()


def _serve_queue(to_do: Any, done: Any) -> None:
    while (task := to_do.get()) is not None:
        index, *work = task
        done.put((index, _compute(*work)))


@contextmanager
def _pool(workers: int, *given: Any) -> Iterator[Any]:
    with multiprocessing.get_context("fork").Pool(workers, _keep if given else None, given) as pool:
        yield pool
        pool.close()
        pool.join()


@contextmanager
def _servers(serve: Callable[..., None], args: Sequence[tuple[Any, ...]]) -> Iterator[None]:
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=serve, args=one, daemon=True) for one in args]
    for one in started:
        one.start()
    try:
        yield
    except BaseException:
        for one in started:
            one.kill()
        raise
    finally:
        for one in started:
            one.join()


# The standard library's come first: what is forked is to inherit no threads of ours.
PEERS: dict[str, Peer] = {
    "NumPy, one core": numpy_alone,
    "Process a task": process,
    "ProcessPoolExecutor": executor,
    "Pool": pool_of_processes,
    "Array": value_and_array,
    "Manager": manager,
    "SharedMemory": shared_memory,
    "Pipe": pipe,
    "Queue": queue,
    "SharedArray, threads": shared_array_threads,
    "SharedArray": shared_array,
}

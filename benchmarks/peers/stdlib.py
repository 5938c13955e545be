"""Peers that need `multiprocessing` and `concurrent.futures` alone."""

import ctypes
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import wait

import numpy as np

from benchmarks import tasks
from benchmarks.jobs import JOBS
from benchmarks.peers.ready import Ready, shared_memory
from benchmarks.settings import METHOD, WORKERS


@contextmanager
def process_a_task():
    """A new process for each chunk. Forked: any other would import and compile for each."""
    context = multiprocessing.get_context("fork")

    @contextmanager
    def ready(job):
        job.kernel(job.data[:1].copy())  # compiled, so that children inherit it
        with shared_memory(job.shape) as (_, array):
            yield Ready(array, lambda: _each(context, job, array))

    yield ready


def _each(context, job, array):
    started = [context.Process(target=job.kernel, args=(part,)) for part in _parts(array, job)]
    for process in started:
        process.start()
    for process in started:
        process.join()


@contextmanager
def pool_pickled():
    """Chunks travel to the workers and back."""
    with _pool() as pool:
        yield lambda job: _travelling(job, lambda sent: pool.starmap(tasks.run_sent, sent, 1))


@contextmanager
def pool_shared_memory():
    """Workers attach by name once; names and numbers are sent."""
    with _pool() as pool:
        yield lambda job: _attached(job, lambda work: pool.starmap(tasks.run_attached, work, 1))


@contextmanager
def executor():
    """The same with `concurrent.futures`."""
    context = multiprocessing.get_context(METHOD)
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
        yield lambda job: _attached(
            job, lambda work: list(pool.map(tasks.run_attached, *zip(*work, strict=True)))
        )


@contextmanager
def array():
    """An Array without a lock, as large as any job needs: it travels only to new processes."""
    largest = max(int(np.prod(job.shape)) for job in JOBS.values())
    memory = multiprocessing.get_context(METHOD).Array(ctypes.c_double, largest, lock=False)
    with _pool(tasks.keep, "array", memory) as pool:

        def ready(job):
            count = int(np.prod(job.shape))
            work = [(job.name, *chunk) for chunk in job.chunks]
            return nullcontext(
                Ready(
                    np.frombuffer(memory, count=count).reshape(job.shape),
                    lambda: pool.starmap(tasks.run_inherited, work, 1),
                )
            )

        yield ready


@contextmanager
def manager():
    """Chunks are items of a list that a server process holds."""
    context = multiprocessing.get_context(METHOD)
    with context.Manager() as server:
        parts = server.list()
        with _pool(tasks.keep, "parts", parts) as pool:

            def run(sent):
                parts[:] = [part for _, part in sent]
                work = [(job, index) for index, (job, _) in enumerate(sent)]
                pool.starmap(tasks.run_managed, work, 1)
                return parts[:]

            yield lambda job: _travelling(job, run)


@contextmanager
def queue():
    """Workers take chunks from one queue and put them into another."""
    context = multiprocessing.get_context(METHOD)
    to_do, done = context.Queue(), context.Queue()

    def run(sent):
        for index, task in enumerate(sent):
            to_do.put((index, *task))
        return [part for _, part in sorted((done.get() for _ in sent), key=lambda item: item[0])]

    with _processes(context, tasks.serve_queue, [(to_do, done)] * WORKERS):
        yield lambda job: _travelling(job, run)
        for _ in range(WORKERS):
            to_do.put(None)


@contextmanager
def pipe():
    """A worker at the end of each pipe gets its next chunk when it has sent the last."""
    context = multiprocessing.get_context(METHOD)
    pipes = [context.Pipe() for _ in range(WORKERS)]
    with _processes(context, tasks.serve_pipe, [(theirs,) for _, theirs in pipes]):
        for _, theirs in pipes:
            theirs.close()
        ours = [mine for mine, _ in pipes]
        yield lambda job: _travelling(job, lambda sent: _converse(ours, sent))
        for mine in ours:
            mine.close()


def _converse(pipes, sent):
    done, waiting, asked = [None] * len(sent), list(enumerate(sent))[::-1], {}
    for pipe in pipes[: len(sent)]:
        index, task = waiting.pop()
        pipe.send(task)
        asked[pipe] = index
    while asked:
        for pipe in wait(list(asked)):
            done[asked.pop(pipe)] = pipe.recv()
            if waiting:
                index, task = waiting.pop()
                pipe.send(task)
                asked[pipe] = index
    return done


def _travelling(job, run):
    """Ready, where `run` gets tasks with their data and returns what became of these."""
    array = np.empty(job.shape)
    parts = _parts(array, job)
    sent = [(job.name, part) for part in parts]

    def run_and_fill():
        for part, done in zip(parts, run(sent), strict=True):
            part[...] = done

    return nullcontext(Ready(array, run_and_fill))


@contextmanager
def _attached(job, run):
    """Ready, where `run` gets tasks that name a piece of shared memory."""
    with shared_memory(job.shape) as (name, array):
        work = [(job.name, name, job.shape, *chunk) for chunk in job.chunks]
        yield Ready(array, lambda: run(work))


def _parts(array, job):
    return [array[start:stop] for start, stop in job.chunks]


@contextmanager
def _pool(initializer=None, *args):
    with multiprocessing.get_context(METHOD).Pool(WORKERS, initializer, args) as pool:
        yield pool
        pool.close()
        pool.join()


@contextmanager
def _processes(context, target, arguments):
    """Running until they end by themselves."""
    started = [context.Process(target=target, args=args, daemon=True) for args in arguments]
    for process in started:
        process.start()
    yield
    for process in started:
        process.join()

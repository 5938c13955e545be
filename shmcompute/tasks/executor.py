"""`Executor`: what a pool does with tasks, by the standard library's names."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from shmcompute import config
from shmcompute.tasks.map_results import Results, Unordered, flat, in_order
from shmcompute.tasks.work_item import Function, each

T = TypeVar("T")

SHARES = 4  # chunks for each worker that `starmap` cuts, as multiprocessing.Pool does


class Executor(futures.Executor):
    """A `concurrent.futures.Executor` with the lazy maps of `multiprocessing.Pool`."""

    @property
    @abstractmethod
    def workers(self) -> int:
        """How many tasks run at the same time."""

    @abstractmethod
    def _submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]: ...

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a worker call ``fn(*args, **kwargs)``.

        Shared arrays and views of them travel as handles, and what a worker writes to them is
        seen here. Function and arguments are pickled when a worker is free to take them, so leave
        them as they are until the future is done. A function may come from anywhere: ``__main__``,
        a notebook, a lambda. A task that calls `parallel_apply` or submits others runs them
        itself.

        Returns
        -------
        concurrent.futures.Future
            What the function raised, it raises, with the worker's traceback as the cause. A
            SharedArray that a worker made and returned is the caller's: to close, or to drop.

        Raises
        ------
        ClosedError
            After `shutdown` or ``close``; it is a RuntimeError, too.
        ForkedPoolError
            In a process forked from the pool's own.

        Examples
        --------
        >>> import numpy as np, shmcompute as sc
        >>> with sc.Pool(2, backend="threads") as pool, sc.SharedArray(np.arange(4.0)) as arr:
        ...     future = pool.submit(np.sum, arr[1:])
        ...     print(future.result())
        6.0
        """
        return self._submit(Function(fn), args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Call `fn` with the items of the iterables, side by side, as `map` does; results in order.

        Parameters
        ----------
        timeout : float, optional
            Seconds from now after which a result that is not there is a TimeoutError.
        chunksize : int
            How many items go to a worker at once. They are one task: if one fails, so do those
            that come after it.
        buffersize : int, optional
            How many chunks may be under way or done and not yet asked for. By default all: the
            iterables are read to their end at once.

        Examples
        --------
        >>> import shmcompute as sc
        >>> with sc.Pool(2, backend="threads") as pool:
        ...     print(list(pool.map(pow, [2, 3, 4], [5, 2, 3])))
        [32, 9, 64]
        """
        limit = None if buffersize is None else config.count("buffersize", buffersize)
        # One that is over is a late result, as in the standard library.
        until = None if timeout is None else time.monotonic() + config.duration("timeout", timeout)
        calls = self._calls(fn, zip(*iterables, strict=False), chunksize)
        results = in_order(deque(islice(calls, limit)), calls, until)
        return results if chunksize == 1 else flat(results)

    def starmap(
        self, fn: Callable[..., T], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[T]:
        """The list of ``fn(*item)`` for each item, as `multiprocessing.pool.Pool.starmap`.

        Parameters
        ----------
        chunksize : int, optional
            How many items go to a worker at once; by default a quarter of a worker's share.

        Examples
        --------
        >>> import shmcompute as sc
        >>> with sc.Pool(2, backend="threads") as pool:
        ...     print(pool.starmap(pow, [(2, 5), (3, 2)]))
        [32, 9]
        """
        items = [tuple(item) for item in iterable]
        if chunksize is None:
            chunksize = max(1, -(-len(items) // (SHARES * self.workers)))
        calls = deque(self._calls(fn, iter(items), chunksize))
        results = in_order(calls, iter(()), None)
        return list(results if chunksize == 1 else flat(results))

    def imap(
        self, fn: Callable[[Any], T], iterable: Iterable[Any], chunksize: int = 1
    ) -> Results[T]:
        """``fn(item)`` for each item, in order, lazily: as `multiprocessing.pool.Pool.imap`.

        The iterable is read in the calling thread, now and as results are asked for, two chunks a
        worker ahead (up to 32 of chunks that take less than a millisecond). So it may be without
        end, and what is not yet asked for does not pile up; but it can't wait for results itself.

        Examples
        --------
        >>> import itertools, shmcompute as sc
        >>> with sc.Pool(2, backend="threads") as pool:
        ...     squares = pool.imap(lambda n: n * n, itertools.count())
        ...     print(next(squares), next(squares), next(squares))
        0 1 4
        """
        return Results(self._lazily(fn, iterable, chunksize), self.workers, chunksize > 1)

    def imap_unordered(
        self, fn: Callable[[Any], T], iterable: Iterable[Any], chunksize: int = 1
    ) -> Results[T]:
        """As `imap`, but results come as they are done.

        Examples
        --------
        >>> import shmcompute as sc
        >>> with sc.Pool(2, backend="threads") as pool:
        ...     print(sorted(pool.imap_unordered(abs, [-3, 2, -1])))
        [1, 2, 3]
        """
        return Unordered(self._lazily(fn, iterable, chunksize), self.workers, chunksize > 1)

    def _lazily(
        self, fn: Callable[..., Any], iterable: Iterable[Any], chunksize: int
    ) -> Iterator[Future[Any]]:
        return self._calls(fn, ((item,) for item in iterable), chunksize)

    def _calls(
        self, fn: Callable[..., Any], items: Iterator[tuple[Any, ...]], chunksize: int
    ) -> Iterator[Future[Any]]:
        """Submit the items, a chunk at a time, as far as this is iterated."""
        if config.count("chunksize", chunksize) == 1:
            return self._singly(Function(fn), items)
        return self._in_chunks(Function(partial(each, fn)), items, chunksize)

    def _singly(
        self, function: Function, items: Iterator[tuple[Any, ...]]
    ) -> Iterator[Future[Any]]:
        for args in items:
            yield self._submit(function, args, {})

    def _in_chunks(
        self, function: Function, items: Iterator[tuple[Any, ...]], chunksize: int
    ) -> Iterator[Future[Any]]:
        broken: Exception | None = None
        while broken is None:
            chunk: list[tuple[Any, ...]] = []
            try:
                chunk.extend(islice(items, chunksize))
            except Exception as error:  # noqa: BLE001  # raised below, after what came before it
                broken = error
            if not chunk:
                break
            yield self._submit(function, (chunk,), {})
        if broken is not None:
            try:
                raise broken
            finally:
                del broken

"""`Executor`: a pool's methods for tasks, with the standard library's names."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any, ParamSpec, TypeVar

from shmcompute import config
from shmcompute.progress import Asked, asked_for
from shmcompute.system.interrupts import deadline_of
from shmcompute.tasks.map_results import Results, Unordered, flat, in_order
from shmcompute.tasks.tally import Tally
from shmcompute.tasks.work_item import Function, describe, each

A = TypeVar("A")
P = ParamSpec("P")
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

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Have a worker call ``fn(*args, **kwargs)``.

        Shared arrays and views of them travel as handles, and what a worker writes to them is
        seen here. Function and arguments are pickled when a worker is free to take them, so do not
        change them until the future is done. A function may come from anywhere: ``__main__``,
        a notebook, a lambda. A task that calls `parallel_apply` or submits others runs them
        itself.

        Parameters
        ----------
        fn : callable
        *args, **kwargs
            What it is called with.

        Returns
        -------
        concurrent.futures.Future
            It raises what the function raised, with the worker's traceback as the cause. A
            SharedArray that a worker made and returned belongs to the caller, who closes it.

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
        progress: Asked = None,
    ) -> Iterator[T]:
        """Call `fn` with the items of the iterables, side by side, as `map` does; results in order.

        Parameters
        ----------
        timeout : float, optional
            Seconds from now; a result that is not there by then is a TimeoutError.
        chunksize : int
            How many items go to a worker at once. They are one task: if one fails, so do those
            that come after it.
        buffersize : int, optional
            How many chunks may be submitted whose results are not yet taken. By default all: the
            iterables are read to their end at once.
        progress : bool, str or callable, optional
            Shows how many items are done while the caller waits for a result: as for
            `parallel_apply`. The total is that of the shortest iterable whose length is known, or
            None. What a callable raises ends the iteration: what was not begun is cancelled.

        Returns
        -------
        iterator
            Over the results. Where a task failed, what it raised is raised in its place.

        Examples
        --------
        >>> import shmcompute as sc
        >>> with sc.Pool(2, backend="threads") as pool:
        ...     print(list(pool.map(pow, [2, 3, 4], [5, 2, 3])))
        [32, 9, 64]
        """
        limit = None if buffersize is None else config.count("buffersize", buffersize)
        # A timeout of 0 or less is allowed, and late at once, as in the standard library.
        deadline = None if timeout is None else deadline_of(config.duration("timeout", timeout))
        tally = _tally(progress, iterables, fn)
        calls = self._calls(fn, zip(*iterables, strict=False), chunksize, tally)
        results = in_order(deque(islice(calls, limit)), calls, deadline, tally)
        return results if chunksize == 1 else flat(results)

    def starmap(
        self,
        fn: Callable[..., T],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        progress: Asked = None,
    ) -> list[T]:
        """The list of ``fn(*item)`` for each item, as `multiprocessing.pool.Pool.starmap`.

        Parameters
        ----------
        chunksize : int, optional
            How many items go to a worker at once; by default a quarter of a worker's share.
        progress : bool, str or callable, optional
            As for `map`.

        Returns
        -------
        list
            Of the results, in order.

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
        tally = _tally(progress, (items,), fn)
        calls = deque(self._calls(fn, iter(items), chunksize, tally))
        results = in_order(calls, iter(()), None, tally)
        return list(results if chunksize == 1 else flat(results))

    def imap(
        self,
        fn: Callable[[A], T],
        iterable: Iterable[A],
        chunksize: int = 1,
        progress: Asked = None,
    ) -> Results[T]:
        """``fn(item)`` for each item, in order, lazily: as `multiprocessing.pool.Pool.imap`.

        The iterable is read in the calling thread, now and as results are taken, two chunks a
        worker ahead (up to 32 of chunks that take less than a millisecond). So it may be endless,
        and results do not pile up; but it must not wait for results itself.

        Parameters
        ----------
        fn : callable
        iterable : iterable
            May be endless.
        chunksize : int
            How many items go to a worker at once.

        Returns
        -------
        iterator
            Over the results.

        Examples
        --------
        >>> import itertools, shmcompute as sc
        >>> with sc.Pool(2, backend="threads") as pool:
        ...     squares = pool.imap(lambda n: n * n, itertools.count())
        ...     print(next(squares), next(squares), next(squares))
        0 1 4
        """
        tally = _tally(progress, (iterable,), fn)
        calls = self._calls(fn, zip(iterable), chunksize, tally)
        return Results(calls, self.workers, chunksize > 1, tally)

    def imap_unordered(
        self,
        fn: Callable[[A], T],
        iterable: Iterable[A],
        chunksize: int = 1,
        progress: Asked = None,
    ) -> Results[T]:
        """As `imap`, but results come in the order in which they are done.

        Examples
        --------
        >>> import shmcompute as sc
        >>> with sc.Pool(2, backend="threads") as pool:
        ...     print(sorted(pool.imap_unordered(abs, [-3, 2, -1])))
        [1, 2, 3]
        """
        tally = _tally(progress, (iterable,), fn)
        calls = self._calls(fn, zip(iterable), chunksize, tally)
        return Unordered(calls, self.workers, chunksize > 1, tally)

    def _calls(
        self,
        fn: Callable[..., Any],
        items: Iterator[tuple[Any, ...]],
        chunksize: int,
        tally: Tally | None,
    ) -> Iterator[Future[Any]]:
        """Futures of the items, chunk by chunk, each submitted when it is taken from here."""
        if config.count("chunksize", chunksize) == 1:
            function = Function(fn)
            calls = (self._submit(function, args, {}) for args in items)
            return calls if tally is None else map(partial(tally.count, items=1), calls)
        return self._in_chunks(Function(partial(each, fn)), items, chunksize, tally)

    def _in_chunks(
        self,
        function: Function,
        items: Iterator[tuple[Any, ...]],
        chunksize: int,
        tally: Tally | None,
    ) -> Iterator[Future[Any]]:
        failure: Exception | None = None
        while failure is None:
            chunk: list[tuple[Any, ...]] = []
            try:
                chunk.extend(islice(items, chunksize))
            except Exception as error:  # noqa: BLE001  # raised after the items before it
                failure = error
            if not chunk:
                break
            if tally is None:
                yield self._submit(function, (chunk,), {})
            else:
                yield tally.count(self._submit(function, (chunk,), {}), len(chunk))
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # an error refers to this frame: let the frame not refer to it


def _tally(
    progress: Asked, iterables: Iterable[Iterable[Any]], function: Callable[..., Any]
) -> Tally | None:
    """What counts the items, if somebody wants to know."""
    asked = None if progress is None else asked_for(progress)
    return None if asked is None else Tally(asked, iterables, describe(function))

"""`Executor`: what a pool does with tasks, by the standard library's names."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future
from functools import partial
from itertools import islice
from numbers import Real
from queue import Empty, SimpleQueue
from typing import Any, NoReturn, TypeVar

from shmcompute import config
from shmcompute.call import Function, each

T = TypeVar("T")

AHEAD = 2  # chunks for each worker that `imap` keeps under way,
FURTHER = 32  # and as many of tiny ones,
TINY = 5e-4  # of which all workers together do one in so many seconds
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
        until = None if timeout is None else time.monotonic() + _checked(timeout)
        calls = self._calls(fn, zip(*iterables, strict=False), chunksize)
        results = _in_order(deque(islice(calls, limit)), calls, until)
        return results if chunksize == 1 else _flat(results)

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
        results = _in_order(calls, iter(()), None)
        return list(results if chunksize == 1 else _flat(results))

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
        while chunk := list(islice(items, chunksize)):
            yield self._submit(function, (chunk,), {})


class Results(Iterator[T]):
    """Results of `Executor.imap`, in order. What a call raised comes in its place."""

    def __init__(self, calls: Iterator[Future[Any]], workers: int, chunked: bool) -> None:
        self._calls = calls
        self._least, self._most = AHEAD * workers, FURTHER * workers
        self._ahead = self._least
        self._chunked = chunked
        self._chunk: list[T] = []  # results that are there, the next one last
        self._under_way: dict[Future[Any], float] = {}  # and since when, in their order
        self._broken: BaseException | None = None  # what the iterable raised
        self._lock = threading.RLock()  # threads that share it take turns
        self._read_on()

    def __iter__(self) -> Results[T]:
        return self

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout: float | None = None) -> T:
        """The next result.

        Raises
        ------
        StopIteration
            If there are no more.
        TimeoutError
            If it is not there within `timeout` seconds; it can be asked for again.
        Exception
            What the call raised; and when all before it has come, what the iterable raised.
        """
        patience = None if timeout is None else max(0.0, _checked(timeout))
        if not self._lock.acquire(timeout=-1 if patience is None else patience):
            raise _late(timeout)
        try:
            while not self._chunk:
                self._read_on()
                if not self._under_way:
                    self._end()
                result = _outcome(self._next_done(patience))
                if not self._chunked:
                    return result  # type: ignore[no-any-return]
                self._chunk = result[::-1]
            return self._chunk.pop()
        finally:
            self._lock.release()

    def _end(self) -> NoReturn:
        """There are no more."""
        broken, self._broken = self._broken, None
        if broken is None:
            raise StopIteration
        try:
            raise broken
        finally:
            del broken  # an error refers to this frame: let the frame not refer to it

    def close(self) -> None:
        """Read no further, and cancel what was not begun."""
        self._calls, self._broken = iter(()), None
        while self._under_way:
            self._under_way.popitem()[0].cancel()

    def __del__(self) -> None:
        if hasattr(self, "_under_way"):
            self.close()

    def _read_on(self) -> None:
        try:
            for future in islice(self._calls, max(0, self._ahead - len(self._under_way))):
                self._add(future)
        except Exception as error:  # the iterable's: told in its place
            if not self._under_way:
                raise
            self._broken = error

    def _add(self, future: Future[Any]) -> None:
        self._under_way[future] = time.monotonic()

    def _next_done(self, timeout: float | None) -> Future[Any]:
        """The future whose result is next; it is under way no more."""
        waits, count = not self._there(), len(self._under_way)
        future = self._done(timeout)
        now = time.monotonic()
        took = (now - self._under_way.pop(future, now)) / count  # it is gone if all was closed
        if waits:  # for tiny ones it takes more of them to keep workers busy
            self._ahead = min(2 * self._ahead, self._most) if took < TINY else self._least
        return future

    def _there(self) -> bool:
        """Whether there is a result."""
        return next(iter(self._under_way)).done()

    def _done(self, timeout: float | None) -> Future[Any]:
        """Wait for the future whose result is next."""
        future = next(iter(self._under_way))
        try:
            future.exception(timeout)
        except futures.CancelledError:  # which is its outcome
            pass
        except TimeoutError:
            raise _late(timeout) from None
        return future


class Unordered(Results[T]):
    """Results of `Executor.imap_unordered`, as they are done."""

    def __init__(self, calls: Iterator[Future[Any]], workers: int, chunked: bool) -> None:
        self._finished: SimpleQueue[Future[Any]] = SimpleQueue()
        super().__init__(calls, workers, chunked)

    def _add(self, future: Future[Any]) -> None:
        super()._add(future)
        future.add_done_callback(self._finished.put)

    def _there(self) -> bool:
        return not self._finished.empty()

    def _done(self, timeout: float | None) -> Future[Any]:
        try:
            return self._finished.get(timeout=timeout)
        except Empty:
            raise _late(timeout) from None


def _checked(timeout: object) -> float:
    """A timeout, if it is a time; one that is over is the standard library's, too."""
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(f"timeout: expected seconds or None, got {timeout!r}")
    return min(float(timeout), config.LONGEST)


def _late(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no result within {timeout} s; ask again, or close()")


def _in_order(
    under_way: deque[Future[Any]], calls: Iterator[Future[Any]], until: float | None
) -> Iterator[Any]:
    """Results of these futures, and of as many that follow; no reference to any is kept."""
    try:
        while under_way:
            under_way.extend(islice(calls, 1))
            yield _outcome(under_way.popleft(), until)
    finally:
        for future in under_way:
            future.cancel()


def _outcome(future: Future[Any], until: float | None = None) -> Any:
    try:
        return future.result(None if until is None else until - time.monotonic())
    finally:
        future.cancel()  # if it was late
        del future  # an error refers to this frame: let the frame not refer to it


def _flat(lists: Iterator[list[T]]) -> Iterator[T]:
    for some in lists:
        some.reverse()
        while some:
            yield some.pop()

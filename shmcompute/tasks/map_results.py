"""Results of an executor's maps: in order, lazily, or as they are done."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, NoReturn, TypeVar

from shmcompute import config
from shmcompute.errors import ForkedPoolError
from shmcompute.system.interrupts import call_with_lock

T = TypeVar("T")

AHEAD = 2  # chunks for each worker that `imap` keeps under way,
FURTHER = 32  # and as many of tiny ones,
TINY = 5e-4  # of which all workers together do one in so many seconds


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
        self._closed = False
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
        patience = None if timeout is None else max(0.0, config.duration("timeout", timeout))
        began = time.monotonic()

        def read(taken: bool) -> T:
            if not taken:
                raise _late(timeout)
            waited = time.monotonic() - began
            return self._read(None if patience is None else max(0.0, patience - waited))

        return call_with_lock(self._lock, math.inf if patience is None else patience, read)

    def _read(self, patience: float | None) -> T:
        while not self._chunk:
            self._read_on()
            if not self._under_way:
                self._end()
            result = _outcome(self._next_done(patience))
            if not self._chunked:
                return result  # type: ignore[no-any-return]
            self._chunk = result[::-1]
        return self._chunk.pop()

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
        self._closed = True
        self._calls, self._broken = iter(()), None
        with suppress(KeyError):  # another thread has taken the last
            while True:
                self._under_way.popitem()[0].cancel()

    def __del__(self) -> None:
        if hasattr(self, "_under_way"):
            self.close()

    def _read_on(self) -> None:
        try:
            for future in islice(self._calls, max(0, self._ahead - len(self._under_way))):
                self._add(future)
                if self._closed:  # meanwhile, by another thread
                    future.cancel()
        except ForkedPoolError:  # nor will those come that are under way
            raise
        except Exception as error:  # the iterable's: told in its place
            if not self._under_way:
                raise
            trace = error.__traceback__  # without this frame, which refers to us
            self._broken = error.with_traceback(trace and trace.tb_next)
        except BaseException:  # Ctrl-C, which ends a generator for good, or a task has no place
            self._calls = iter(())
            self._broken = RuntimeError(
                "the iterable was being read when an interrupt came; the results that would follow "
                "are lost. Start again with what is left"
            )
            raise

    def _add(self, future: Future[Any]) -> None:
        self._under_way[future] = time.monotonic()

    def _next_done(self, timeout: float | None) -> Future[Any]:
        """The future whose result is next; it is under way no more."""
        waits, count = not self._there(), max(1, len(self._under_way))
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


def _late(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no result within {timeout} s; ask again, or close()")


def in_order(
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


def flat(lists: Iterator[list[T]]) -> Iterator[T]:
    """What stands in the lists, one after the other; no reference to any is kept."""
    for some in lists:
        some.reverse()
        while some:
            yield some.pop()

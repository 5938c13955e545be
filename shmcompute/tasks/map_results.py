"""The results of an executor's maps: in order, lazily, or as they are done."""

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
from shmcompute.errors import ClosedError, ForkedPoolError
from shmcompute.system.interrupts import call_with_lock, deadline_of, seconds_to
from shmcompute.system.tracebacks import shorten
from shmcompute.tasks.tally import Tally

T = TypeVar("T")

# How many chunks for each worker `imap` keeps submitted: usually, and if they are tiny.
AHEAD, TINY_AHEAD = 2, 32
TINY = 5e-4  # seconds; chunks are tiny if the workers together finish one in less


class Results(Iterator[T]):
    """Results of `Executor.imap`, in order; an error is raised in the place of its result."""

    def __init__(
        self,
        calls: Iterator[Future[Any]],
        workers: int,
        chunked: bool,
        tally: Tally | None = None,
    ) -> None:
        self._calls = calls
        self._tally = tally
        self._least, self._most = AHEAD * workers, TINY_AHEAD * workers
        self._ahead = self._least
        self._chunked = chunked
        self._chunk: list[T] = []  # results of the current chunk, the next one last
        self._submitted: dict[Future[Any], float] = {}  # in order, and when each was submitted
        self._failure: BaseException | None = None  # raised by the iterable; comes last
        self._closed = False
        self._lock = threading.RLock()  # one thread at a time may take a result
        self._submit_ahead()

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
            If it is not there within `timeout` seconds; a later call may get it.
        Exception
            What the call raised; after all results, what the iterable raised.
        """
        limit = None if timeout is None else max(0.0, config.duration("timeout", timeout))
        deadline = None if limit is None else deadline_of(limit)

        def read(locked: bool) -> T:
            if not locked:
                raise _late(timeout)
            return self._read(seconds_to(deadline))

        try:
            return call_with_lock(self._lock, math.inf if limit is None else limit, read)
        except BaseException as error:
            shorten(error)
            raise

    def _read(self, timeout: float | None) -> T:
        while not self._chunk:
            self._submit_ahead()
            if not self._submitted:
                self._end()
            try:
                result = _outcome(self._take_next(timeout))
            except StopIteration as error:  # it would seem to be the end of all
                raise RuntimeError("a task raised StopIteration") from error
            if not self._chunked:
                return result  # type: ignore[no-any-return]
            self._chunk = result[::-1]
        return self._chunk.pop()

    def _end(self) -> NoReturn:
        """Raise what ends the iteration."""
        failure = StopIteration() if self._failure is None else self._failure
        if self._tally is not None:
            self._tally.finish()
        self._failure = None
        try:
            raise failure
        finally:
            del failure  # an error refers to this frame: let the frame not refer to it

    def close(self) -> None:
        """Submit no more, and cancel what was not begun."""
        self._closed = True
        self._calls, self._failure = iter(()), None
        if self._tally is not None:
            self._tally.close()
        with suppress(KeyError):  # it is empty now, whichever thread has taken the last
            while True:
                self._submitted.popitem()[0].cancel()

    def __del__(self) -> None:
        if hasattr(self, "_submitted"):
            self.close()

    def _submit_ahead(self) -> None:
        try:
            for future in islice(self._calls, max(0, self._ahead - len(self._submitted))):
                self._add(future)
                if self._closed:  # by another thread, since the loop began
                    future.cancel()
        except ForkedPoolError:  # the results of those submitted will not come either
            raise
        except Exception as error:  # the iterable's; raised after the results before it
            if isinstance(error, ClosedError) and not self._submitted:
                raise  # the pool's
            trace = error.__traceback__  # without this frame, which refers to us
            self._failure = error.with_traceback(trace and trace.tb_next)
        except BaseException:  # Ctrl-C: it ends a generator for good, or loses an item
            self._calls = iter(())
            self._failure = RuntimeError(
                "the iterable was being read when an interrupt came; the results that would follow "
                "are lost. Start again with what is left"
            )
            raise

    def _add(self, future: Future[Any]) -> None:
        self._submitted[future] = time.monotonic()

    def _take_next(self, timeout: float | None) -> Future[Any]:
        """Wait for the future whose result is next, and take it from those submitted."""
        waits, count = not self._ready(), max(1, len(self._submitted))
        future = self._watch(timeout)
        now = time.monotonic()
        took = (now - self._submitted.pop(future, now)) / count  # `close` may have taken it
        if waits:  # tiny chunks: more of them have to be submitted to keep the workers busy
            self._ahead = min(2 * self._ahead, self._most) if took < TINY else self._least
        return future

    def _watch(self, timeout: float | None) -> Future[Any]:
        """Wait, and show how far it is meanwhile, if so asked."""
        if self._tally is None:
            return self._wait(timeout)
        try:
            return self._tally.watch(self._wait, None if timeout is None else deadline_of(timeout))
        except TimeoutError:
            raise _late(timeout) from None

    def _ready(self) -> bool:
        """Whether the next result is there."""
        return next(iter(self._submitted)).done()

    def _wait(self, timeout: float | None) -> Future[Any]:
        """The future whose result is next, once it is done; it stays among those submitted."""
        future = next(iter(self._submitted))
        try:
            future.exception(timeout)
        except futures.CancelledError:  # which is its outcome
            pass
        except TimeoutError:
            raise _late(timeout) from None
        return future


class Unordered(Results[T]):
    """Results of `Executor.imap_unordered`, as they are done."""

    def __init__(
        self,
        calls: Iterator[Future[Any]],
        workers: int,
        chunked: bool,
        tally: Tally | None = None,
    ) -> None:
        self._finished: SimpleQueue[Future[Any]] = SimpleQueue()
        super().__init__(calls, workers, chunked, tally)

    def _add(self, future: Future[Any]) -> None:
        super()._add(future)
        future.add_done_callback(self._finished.put)

    def _ready(self) -> bool:
        return not self._finished.empty()

    def _wait(self, timeout: float | None) -> Future[Any]:
        try:
            return self._finished.get(timeout=timeout)
        except Empty:
            raise _late(timeout) from None


def _late(timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no result within {timeout} s; ask again, or close()")


def in_order(
    submitted: deque[Future[Any]],
    calls: Iterator[Future[Any]],
    deadline: float | None,
    tally: Tally | None = None,
) -> Iterator[Any]:
    """Results of these futures, then of further `calls`; for each that is taken, one is submitted.

    No reference to a result is kept.
    """
    try:
        while submitted:
            submitted.extend(islice(calls, 1))
            if tally is not None:
                _watch_first(submitted, tally, deadline)
            yield _outcome(submitted.popleft(), deadline)
        if tally is not None:
            tally.finish()
    finally:
        for future in submitted:
            future.cancel()
        if tally is not None:
            tally.close()


def _watch_first(submitted: deque[Future[Any]], tally: Tally, deadline: float | None) -> None:
    """Wait for the first of them, or till the deadline, and show how far all are."""

    def wait(timeout: float) -> None:
        if not futures.wait([submitted[0]], timeout).done:
            raise TimeoutError

    with suppress(TimeoutError):  # the outcome tells
        tally.watch(wait, deadline)


def _outcome(future: Future[Any], deadline: float | None = None) -> Any:
    try:
        return future.result(seconds_to(deadline))
    finally:
        future.cancel()  # matters only if it is late
        del future  # an error refers to this frame: let the frame not refer to it


def flat(lists: Iterator[list[T]]) -> Iterator[T]:
    """The items of all lists, one after the other; no reference to any is kept."""
    for items in lists:
        items.reverse()
        while items:
            yield items.pop()

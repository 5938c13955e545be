"""`TaskThreads`: threads that run tasks in the order in which they were submitted."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from shmcompute.system.interrupts import call_uninterrupted

_Task = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class TaskThreads:
    """At most `workers` threads, started as they are needed, which then stay.

    `concurrent.futures.ThreadPoolExecutor` counts its idle threads behind a lock in Python code.
    An interrupt at the wrong instruction of ``submit()`` leaves that locked, and each later one
    hangs; so does the handler of a signal that submits while ``submit()`` does. Here the queue and
    the count take one instruction each: an interrupt in between starts a thread too early at most.

    Parameters
    ----------
    workers : int
    name : str
        What the threads' names begin with.
    """

    def __init__(self, workers: int, name: str) -> None:
        self._workers = workers
        self._name = name
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()  # None: the threads are to end
        self._undone: deque[None] = deque()  # an element for each task that has not ended
        self._threads: list[threading.Thread] = []
        self._starting = threading.Lock()
        self._closed = False
        # The threads do not refer to this: if nobody else does, they end.
        weakref.finalize(self, self._tasks.put, None).atexit = False
        _all.add(self)

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Have a thread call ``function(*args)``.

        Raises
        ------
        RuntimeError
            After `shutdown`.
        """
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future[Any] = Future()
        self._undone.append(None)
        self._tasks.put((future, function, args))
        if len(self._threads) < min(len(self._undone), self._workers):
            call_uninterrupted(self._start, insists=True)
        return future

    def _start(self) -> None:
        with self._starting:
            number = len(self._threads)
            if number < self._workers:
                thread = threading.Thread(
                    target=_serve,
                    args=(self._tasks, self._undone),
                    name=f"{self._name}_{number}",
                    daemon=False,  # a program that ends does its tasks
                )
                thread.start()
                self._threads.append(thread)

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more tasks; the threads end when those there are have ended."""
        self._closed = True
        if cancel_futures:
            with suppress(Empty):
                while True:
                    if (task := self._tasks.get_nowait()) is not None:
                        task[0].cancel()
        self._tasks.put(None)
        for thread in list(self._threads) if wait else ():
            thread.join()

    @staticmethod
    def end_all() -> None:
        """The program ends: let all threads end when their tasks have."""
        for threads in list(_all):
            threads.shutdown(wait=False, cancel_futures=False)


_all: weakref.WeakSet[TaskThreads] = weakref.WeakSet()


def _serve(tasks: SimpleQueue[_Task | None], undone: deque[None]) -> None:
    while (task := tasks.get()) is not None:
        _run(*task)
        undone.pop()
        del task  # its arrays must not wait for the next one
    tasks.put(None)  # for the next thread


def _run(future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function(*args)
    except BaseException as error:  # noqa: BLE001  # who asks the future is to know
        with suppress(InvalidStateError):  # somebody else has set it, and the thread goes on
            future.set_exception(error)
        # An error refers to this frame: let the frame not refer to it.
        del future
    else:
        with suppress(InvalidStateError):
            future.set_result(result)

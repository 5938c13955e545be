"""`BackgroundStart`: workers that a thread starts, which no handler of a signal interrupts."""

from __future__ import annotations

import _thread
import math
from collections.abc import Callable, Iterable

from shmcompute.backends.processes import start
from shmcompute.backends.processes.worker_process import WorkerProcess, close_all, kill_all
from shmcompute.system.interrupts import Latch


class BackgroundStart:
    """Starts workers, however long that takes: what starts them may be stopped itself.

    A start that is given up half-way would leave a child that prints, and a fork server that ends.
    So who does not wait any longer leaves it to go on.

    Parameters
    ----------
    start_one : callable
        Starts the worker of a number.
    numbers : iterable of int

    Attributes
    ----------
    workers : list of WorkerProcess
        Those that are started.
    errors : list of BaseException
        Why there are no more, if so.
    """

    def __init__(self, start_one: Callable[[int], WorkerProcess], numbers: Iterable[int]) -> None:
        self.workers: list[WorkerProcess] = []
        self.errors: list[BaseException] = []
        self._start_one, self._numbers = start_one, numbers
        self._abandoned = False
        self._done = Latch()
        start.under_way.add(self._done)
        try:
            # Not `threading.Thread`, whose start() waits for an Event: see `Latch`.
            _thread.start_new_thread(self._work, ())
        except RuntimeError:  # no thread to be had
            self._work()

    def _work(self) -> None:
        try:
            for number in self._numbers:
                if self._abandoned:  # and what it would be given is closed
                    break
                self.workers.append(self._start_one(number))
        except BaseException as error:  # noqa: BLE001  # the next call's to raise
            self.errors.append(error)
        finally:
            self._done.open()
            if self._abandoned:
                self._end()

    def wait(self, timeout: float | None) -> bool:
        """Wait so many seconds at most; whether all are started, or will not be."""
        return self._done.wait(math.inf if timeout is None else timeout)

    def abandon(self) -> None:
        """End the workers, once they are started."""
        self._abandoned = True
        if self._done.wait(0):
            self._end()

    def _end(self) -> None:
        workers, self.workers = self.workers, []
        kill_all(workers)
        close_all(workers)

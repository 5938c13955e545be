"""Several threads of this process: no isolation, nothing to share, any array will do."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from shmcompute.arguments import Values
from shmcompute.backends.base import Backend, deadline_of, overrun
from shmcompute.backends.tasks import TaskThreads
from shmcompute.call import Function
from shmcompute.partition import dealt
from shmcompute.plan import Plan

SLICE = 0.1  # seconds; a signal that comes just before a wait does not end it


class Threads(Backend):
    """A team of threads. Jitted kernels run compiled with ``nogil``; others share the GIL.

    A timeout is looked at between chunks: a thread can't be stopped.
    """

    threaded = True

    def __init__(self, workers: int, *, caller_runs: bool = False) -> None:
        self.workers = workers
        self._tasks = TaskThreads(workers)
        self._caller_runs = caller_runs
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="shmcompute")

    def run(self, plan: Plan, values: Values, timeout: float | None) -> None:
        _Run(plan, values, timeout).complete(self._executor, self.workers, self._caller_runs)

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        return self._tasks.submit(function, args, keywords)

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        self._tasks.shutdown(wait=wait, cancel_futures=cancel_futures)
        self.close(wait=wait)

    def close(self, *, wait: bool = True) -> None:
        self._executor.shutdown(wait)


class _Run:
    """One run: what is left, what went wrong."""

    def __init__(self, plan: Plan, values: Values, timeout: float | None) -> None:
        self._plan = plan
        self._values = values
        self._timeout = timeout
        self._deadline = deadline_of(timeout)
        self._left = set(range(len(plan.chunks)))
        self._stopped = False

    def complete(self, executor: ThreadPoolExecutor, workers: int, caller_runs: bool) -> None:
        mine, *others = self._shares(workers) or [()]
        futures: list[Future[None]] = []
        try:
            for share in others if caller_runs else [mine, *others]:
                futures.append(executor.submit(self._work, share))
            if caller_runs:
                self._work(mine)
            self._watch(futures)
        finally:
            self._stopped = True
            _wait_all(futures)
        try:
            while futures:
                futures.pop().result()
        finally:
            futures.clear()  # an error refers to this frame: let the frame not refer to it
        if self._left:
            raise overrun(self._plan, self._timeout, list(self._left))

    def _shares(self, workers: int) -> list[Iterable[int]]:
        """Numbers of the chunks that each thread takes: its own, or from one common iterator."""
        count = len(self._plan.chunks)
        if self._plan.static:
            return list(dealt(count, workers))
        return [iter(range(count))] * min(workers, count)  # next() on it is one C call

    def _work(self, share: Iterable[int]) -> None:
        for number in share:
            if self._stopped or (self._deadline and time.monotonic() > self._deadline):
                return
            self._plan.run_chunk(number, self._values)
            self._left.discard(number)

    def _watch(self, futures: list[Future[None]]) -> None:
        """Wait for all; the first that fails stops the rest at their next chunk."""
        pending = set(futures)
        while pending:
            finished, pending = wait(pending, SLICE, return_when=FIRST_COMPLETED)
            if any(future.exception() for future in finished):
                return


def _wait_all(futures: list[Future[None]]) -> None:
    """Return when no thread writes any more; an interrupt has to wait for that."""
    interrupt = None
    while futures:
        try:
            wait(futures)
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt

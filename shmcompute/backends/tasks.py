"""`TaskThreads`: threads of this process that run tasks, there when there is a first one."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from shmcompute.call import Function


class TaskThreads:
    """The standard library's executor, not made before it is needed.

    They are not the threads that run plans: a task may wait for a plan.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._workers, "shmcompute-task")
        return self._executor.submit(function, args, keywords)

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait, cancel_futures=cancel_futures)

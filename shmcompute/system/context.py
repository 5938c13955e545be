"""Where this code runs: in which worker process, and whether within a kernel or a task.

Who runs a kernel or a task must not wait for workers, which may be waiting for it: what is started
there runs serially, in its own thread.
"""

from __future__ import annotations

import threading

in_worker = False  # whether this process is a worker of a pool
worker: int | None = None  # its number in its pool


class _Nesting(threading.local):
    """How many kernels and tasks this thread is in; `try` and `finally` count it.

    A context manager would lose to a Ctrl-C as it ends, and `contextlib`'s sets attributes of what
    is raised, which some errors refuse.
    """

    depth = 0


nesting = _Nesting()


def enter_worker(number: int) -> None:
    """From here on this process is that worker."""
    global in_worker, worker
    in_worker, worker = True, number


def inside_kernel() -> bool:
    """Whether this thread is running a kernel or a task right now."""
    return in_worker or nesting.depth > 0

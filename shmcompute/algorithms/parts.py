"""Parts of an algorithm, run by the common threads.

Code of our own needs no isolation: threads start at once, and see plain arrays where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.apply import plan
from shmcompute.pool import default_pool
from shmcompute.system import context
from shmcompute.typing import Array


def workers() -> int:
    """How many parts can run at once: 1 in a worker, and within a kernel."""
    if context.in_worker or context.nesting.depth:
        return 1
    return default_pool("threads").workers


def run_parts(function: Callable[[int], Any], count: int) -> None:
    """Call ``function(number)`` for each number below `count`, at once where it lets go of the GIL.

    The numbers are taken in order, each by the next thread that is free. What a call raises is
    raised when nothing runs any more; what the others return is dropped.
    """

    def call(numbers: Array) -> None:
        for number in numbers.tolist():
            function(number)

    # Not parallel_apply: it would keep the function, and what that refers to, for the next call.
    plan(call, np.arange(count), chunksize=1, schedule="dynamic", backend="threads")()

"""Parts of an algorithm, run by the common threads.

Code of our own needs no isolation: threads start at once, and see plain arrays where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.apply import plan
from shmcompute.arrays import SharedArray
from shmcompute.pool import default_pool
from shmcompute.system import context, memory
from shmcompute.typing import Array

LARGE = 1 << 26  # bytes: fewer there are always


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


def edges(size: int, count: int) -> list[int]:
    """Where to cut `size` elements into so many parts, nearly equal; the first is 0."""
    return [size * number // count for number in range(count + 1)]


def unwrapped(value: Any) -> Any:
    """The ndarray of a SharedArray; anything else as it is."""
    return value.array if isinstance(value, SharedArray) else value


def plain_array(value: Any) -> Array | None:
    """An ndarray, unless it means more than its elements; None of all else."""
    return value if type(value) is np.ndarray else None


def fits(nbytes: int) -> bool:
    """Whether there is so much memory for a while."""
    return nbytes < LARGE or nbytes < memory.available()

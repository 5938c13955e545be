"""Parts of an algorithm, run by the common threads.

Code of our own needs no isolation: threads start at once, and see plain arrays where they are.
These are the threads that run tasks. Those that run plans wait at a doorbell, which takes a third
of a second to be loaded: too much for who only wants a sum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from shmcompute.arrays import SharedArray
from shmcompute.default_pools import default_pool
from shmcompute.system import memory
from shmcompute.system.context import inside_kernel, nesting
from shmcompute.system.interrupts import Latch, wait_on
from shmcompute.typing import Array

LARGE = 1 << 26  # bytes: fewer there are always


def workers() -> int:
    """How many parts can run at once: 1 in a worker, and within a kernel, task or part."""
    return 1 if inside_kernel() else default_pool("threads").workers


def run_parts(function: Callable[[int], Any], count: int) -> None:
    """Call ``function(number)`` for each number below `count`, at once where it lets go of the GIL.

    The numbers are taken in order, each by the next thread that is free; the caller's is one of
    them. What a call raises is raised when nothing runs any more; what the others return is
    dropped.
    """
    run = _Run(function, count)
    try:
        run.call_helpers(min(workers(), count) - 1)
        run.work()
    finally:
        run.end()
    run.raise_first()


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


class _Run:
    """The numbers that are left, who takes them, and what their calls raised."""

    def __init__(self, function: Callable[[int], Any], count: int) -> None:
        self._function: Callable[[int], Any] | None = function
        self._left = deque(range(count))
        self._helpers: list[Latch] = []  # of each that has begun: opened when it has ended
        self._errors: list[tuple[int, BaseException]] = []

    def call_helpers(self, count: int) -> None:
        """Ask other threads to help; those that are busy come too late, and find nothing left."""
        with suppress(RuntimeError):  # closed meanwhile, or the program ends: the caller does all
            for _ in range(count):
                default_pool("threads").submit(self._help)

    def _help(self) -> None:
        ended = Latch()
        # Before it takes a number: who has emptied `_left` knows all that may be in a call.
        self._helpers.append(ended)
        try:
            self.work()
        finally:
            ended.open()

    def work(self) -> None:
        """Take numbers while there are any."""
        nesting.depth += 1
        try:
            while self._left:
                with suppress(IndexError):  # another thread took the last one
                    self._call(self._left.popleft())
        finally:
            nesting.depth -= 1

    def _call(self, number: int) -> None:
        try:
            if self._function is not None:
                self._function(number)
        except BaseException as error:  # noqa: BLE001  # raised in the calling thread
            self._left.clear()
            self._errors.append((number, error))

    def end(self) -> None:
        """Let no further number be taken, and wait for the calls that run."""
        self._left.clear()
        for ended in self._helpers:
            wait_on(ended, insists=True)
        self._function = None  # which a helper that comes too late would keep, with its arrays

    def raise_first(self) -> None:
        """Raise what the first of the calls that failed has raised; an interrupt before all."""
        try:
            for _, error in sorted(self._errors, key=_urgency):
                raise error
        finally:
            self._errors.clear()  # an error refers to this frame: let the frame not refer to it


def _urgency(failure: tuple[int, BaseException]) -> tuple[bool, int]:
    number, error = failure
    return isinstance(error, Exception), number

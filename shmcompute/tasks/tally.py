"""`Tally`: how many items of a map are done, shown by its caller while that waits for results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sized
from concurrent.futures import Future
from typing import Any, TypeVar

from shmcompute.progress import SLICE, Asked, Meter
from shmcompute.system.interrupts import seconds_to

T = TypeVar("T")


class Tally:
    """Counts items whose task has ended, well or not.

    Parameters
    ----------
    progress : True, str or callable
        As `asked_for` returns it.
    iterables : sequence of iterables
        What is mapped: as many items as the shortest has, of those whose length is known.
    name : str
        What the function is called.
    """

    def __init__(self, progress: Asked, iterables: Iterable[Iterable[Any]], name: str) -> None:
        lengths = [len(one) for one in iterables if isinstance(one, Sized)]
        self._meter = Meter(progress, min(lengths, default=None), "task", name)
        self._ended: deque[int] = deque()  # items of tasks, put here by the threads that end them
        self._done = self._begun = 0
        self.show()

    def count(self, future: Future[Any], items: int) -> Future[Any]:
        """A task of so many items was submitted; its future."""
        self._begun += items
        future.add_done_callback(lambda _: self._ended.append(items))
        if future.done():  # who submits it has run it
            self.show()
        return future

    def show(self) -> None:
        """Show how many have ended by now."""
        while self._ended:
            self._done += self._ended.popleft()
        self._meter(self._done)

    def watch(self, wait: Callable[[float], T], deadline: float | None) -> T:
        """What comes of a wait, which is told for how long; it raises TimeoutError if in vain."""
        while True:
            self.show()
            left = seconds_to(deadline)
            try:
                return wait(SLICE if left is None else min(SLICE, left))
            except TimeoutError:
                if left is not None and left <= SLICE:
                    raise

    def finish(self) -> None:
        """All have ended: futures tell it before they tell their callbacks."""
        self._meter(self._begun)
        self.close()

    def close(self) -> None:
        """Show no more. Idempotent."""
        self._meter.close()

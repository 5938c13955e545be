"""`TaskBatch`: the tasks that a worker has, of which it runs one."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence

from shmcompute.backends.doorbell import DoorbellCaller
from shmcompute.backends.processes.protocol import Task, Tasks
from shmcompute.tasks import WorkItem

MOST = 8  # tasks at once
TINY = 5e-4  # seconds that those may take that go together
OVERDUE = 2e-3  # seconds after which the others are taken back from a worker

_numbers = itertools.count(1, MOST + 1)  # no task of several gets the number of another one


class TaskBatch:
    """Several, if they are tiny: then most of their time would be that of messages.

    A worker claims each before it begins it, in the control block, where the dispatcher can take
    back those that it has not claimed: because one takes longer than was thought, a call waits, or
    the worker has died.
    """

    def __init__(self, caller: DoorbellCaller, worker: int, items: Sequence[WorkItem]) -> None:
        self.items = deque(items)  # those that are not answered
        self.since = time.monotonic()
        self._caller = caller
        self._worker = worker
        self._next = next(_numbers)  # the number of the first of `items`
        self._claims = len(items) > 1

    def message(self, tasks: Sequence[Task]) -> Tasks:
        """What the worker is to get; it may begin."""
        if self._claims:
            self._caller.offer(self._worker, self._next)
        return Tasks(self._next, tuple(tasks))

    def answered(self, count: int) -> tuple[list[WorkItem], float]:
        """The first `count` are; and how long each took."""
        began, self.since = self.since, time.monotonic()
        self._next += count
        return [self.items.popleft() for _ in range(count)], (self.since - began) / count

    @property
    def overdue(self) -> bool:
        """Whether others wait behind one that takes long."""
        return len(self.items) > 1 and time.monotonic() - self.since > OVERDUE

    def take_back(self) -> list[WorkItem]:
        """Those that the worker has not begun, and will not."""
        if not self._claims:
            return []
        self._claims = False
        begun = self._caller.recall(self._worker) - self._next
        back = list(self.items)[begun:]
        self.items = deque(list(self.items)[:begun])
        return back

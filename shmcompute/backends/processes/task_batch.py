"""`TaskBatch`: the tasks that a worker has; how they go there and come back."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence

from shmcompute.backends.doorbell import DoorbellCaller
from shmcompute.backends.processes.protocol import exception_pickling, messages, pickling
from shmcompute.tasks import WorkItem

MOST = 8  # tasks that a worker has at most
TINY = 5e-4  # seconds: tasks that take less go together
OVERDUE = 2e-3  # seconds that one may take before those behind it are taken back

_numbers = itertools.count(1, MOST + 1)  # of the first of each batch: no two tasks have one


class TaskBatch:
    """One task, or several tiny ones, which would else take most of their time as messages.

    A worker claims each of several before it begins it, in the control block. The dispatcher can
    take back there those that are not claimed: because one takes longer than was thought, a call
    waits, or the worker has died.

    Attributes
    ----------
    items : deque of WorkItem
        Those that are not answered.
    """

    def __init__(self, caller: DoorbellCaller, worker: int, items: Sequence[WorkItem]) -> None:
        self.items = deque(items)
        self._since = time.monotonic()
        self._caller = caller
        self._worker = worker
        self._next = next(_numbers)  # the number of the first of `items`
        self._claims = len(items) > 1

    def message(self, tasks: Sequence[messages.Task]) -> messages.Tasks:
        """The message that hands them to the worker, which may claim them from now on."""
        if self._claims:
            self._caller.offer(self._worker, self._next)
        recorded = tuple(0 if item.task is None else item.task.number for item in self.items)
        return messages.Tasks(self._next, tuple(tasks), recorded)

    def answered(self, count: int) -> tuple[list[WorkItem], float]:
        """The first `count` are answered: they, and the seconds that each took."""
        began, self._since = self._since, time.monotonic()
        self._next += count
        return [self.items.popleft() for _ in range(count)], (self._since - began) / count

    @property
    def overdue(self) -> bool:
        """Whether tasks wait behind one that takes long."""
        return len(self.items) > 1 and time.monotonic() - self._since > OVERDUE

    def take_back(self) -> list[WorkItem]:
        """The tasks that the worker has not begun, and now never will."""
        if not self._claims:
            return []
        self._claims = False
        begun = self._caller.recall(self._worker) - self._next
        back = list(self.items)[begun:]
        self.items = deque(list(self.items)[:begun])
        return back


def pack_item(item: WorkItem) -> messages.Task | None:
    """A task as bytes; None if it was cancelled or can't be pickled, which is its outcome."""
    if not item.starts():
        return None
    try:
        return pickling.pack_task(item.function, item.args, item.keywords, item.context)
    except BaseException as error:  # noqa: BLE001  # pickling runs any code
        item.fail(error)
        return None


def settle(item: WorkItem, message: messages.Result | messages.Failure) -> None:
    """Set what came of a task as the outcome of its future."""
    try:
        if isinstance(message, messages.Failure):
            item.fail(exception_pickling.unpack_error(message))
        else:
            item.succeed(pickling.unpack_result(message, item.function))
    except BaseException as error:  # noqa: BLE001  # unpickling runs any code
        item.fail(error)

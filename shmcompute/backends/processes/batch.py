"""`Batch`: the tasks that a worker has, of which it runs one."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence

from shmcompute.backends.processes.channel import Task, Tasks
from shmcompute.backends.processes.member import Member
from shmcompute.call import Call

MOST = 8  # tasks at once
TINY = 5e-4  # seconds that those may take that go together
OVERDUE = 2e-3  # seconds after which the others are taken back from a worker

_numbers = itertools.count(1, MOST + 1)  # no task of several gets the number of another one


class Batch:
    """Several, if they are tiny: then most of their time would be that of messages.

    A worker claims each before it begins it, in the control block, where the desk can take back
    those that it has not: because one takes longer than was thought, a call waits, or the worker
    has died.
    """

    def __init__(self, member: Member, calls: Sequence[Call]) -> None:
        self.calls = deque(calls)  # those that are not answered
        self.since = time.monotonic()
        self._member = member
        self._next = next(_numbers)  # the number of the first of `calls`
        self._claims = len(calls) > 1

    def message(self, tasks: Sequence[Task]) -> Tasks:
        """What the worker is to get; it may begin."""
        if self._claims and self._member.bell is not None:
            self._member.bell.offer(self._member.number, self._next)
        return Tasks(self._next, tuple(tasks))

    def answered(self, count: int) -> tuple[list[Call], float]:
        """The first `count` are; and how long each took."""
        began, self.since = self.since, time.monotonic()
        self._next += count
        return [self.calls.popleft() for _ in range(count)], (self.since - began) / count

    @property
    def overdue(self) -> bool:
        """Whether others wait behind one that takes long."""
        return len(self.calls) > 1 and time.monotonic() - self.since > OVERDUE

    def take_back(self) -> list[Call]:
        """Those that the worker has not begun, and will not."""
        if not self._claims or self._member.bell is None:
            return []
        self._claims = False
        begun = self._member.bell.recall(self._member.number) - self._next
        back = list(self.calls)[begun:]
        self.calls = deque(list(self.calls)[:begun])
        return back

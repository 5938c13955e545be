"""`Dispatcher`: hands out tasks to workers while it holds the lock of a pool."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from shmcompute.backends.processes.fair_lock import FairLock
from shmcompute.backends.processes.poller import Poller, WakeupPipe
from shmcompute.backends.processes.protocol import (
    Attend,
    Failure,
    Forget,
    Lost,
    Ready,
    Rest,
    Result,
    Task,
    pack_task,
    unpack_error,
    unpack_result,
)
from shmcompute.backends.processes.task_batch import MOST, OVERDUE, TINY, TaskBatch
from shmcompute.backends.processes.worker_group import WorkerGroup
from shmcompute.backends.processes.worker_process import WorkerProcess
from shmcompute.errors import ShmComputeError, WorkerLostError
from shmcompute.storage import Handle
from shmcompute.tasks import WorkItem

ROOM = 1 << 14  # bytes of tasks that go together, about
LINGER = 0.002  # seconds that workers go on attending when there is nothing to do


class Dispatcher:
    """Workers that attend, and the tasks that they have: one each, or several tiny ones.

    They go only to a worker that has none, and what it has not begun can be taken back. So no task
    waits for long behind another one, and a death leaves in doubt only what was begun.

    Parameters
    ----------
    items : deque of WorkItem
        The tasks that wait, to which others add.
    cancels : callable
        Whether those are cancelled that nobody was free to take.
    """

    def __init__(
        self,
        group: WorkerGroup,
        fair_lock: FairLock,
        wakeup: WakeupPipe,
        items: deque[WorkItem],
        cancels: Callable[[], bool],
    ) -> None:
        self._group = group
        self._fair_lock = fair_lock
        self._wakeup = wakeup
        self._items = items
        self._cancels = cancels
        self._busy: dict[WorkerProcess, TaskBatch | None] = {}  # None: it forgets segments
        self._pace = math.inf  # seconds that the latest task took
        self._idle: list[WorkerProcess] = []  # those that attend and are not busy
        self._ended: dict[WorkerProcess, frozenset[Handle]] = {}  # what each has still to forget
        self._paths: dict[WorkerProcess, tuple[str, ...]] = {}  # sys.path of each that attends
        self._cancelled = False
        self._spare = False  # whether, when tasks were handed out, somebody went without
        self._begun = False  # whether a task was handed out: else calls that wait go on waiting
        self._still = False  # whether there were no news for a while

    def complete(self) -> None:
        """Hand out tasks until there are none, or a call waits; then all workers are silent."""
        try:
            self._group.bury()
            self._staff()
            while not self._over():
                self._hand_out()
                self._take_in()
            self._dismiss()
        except BaseException as error:  # noqa: BLE001  # a fault of ours: tell who waits for a task
            self._group.silence()
            for batch in self._busy.values():
                self._items.extend(() if batch is None else batch.items)
            self._refuse(error)

    def _over(self) -> bool:
        self._forget()
        if self._busy:
            return False
        return self._gives_way() or (self._still and not self._items)

    def _gives_way(self) -> bool:
        """Whether a call waits that is to go first. The dispatcher has done something before."""
        return self._fair_lock.wanted and (
            self._begun or not any(worker.ready for worker in self._group.workers)
        )

    def _staff(self) -> None:
        """Start who is missing, and watch who is there."""
        try:
            self._group.fill()
        except ShmComputeError as error:
            if not self._group.workers:
                self._refuse(error)
        self._poller = Poller(self._group.workers, self._wakeup)

    def _refuse(self, error: BaseException) -> None:
        """There is nobody to do it: that is the outcome of every task that waits."""
        while self._refused(error):
            pass

    def _refused(self, error: BaseException) -> bool:
        """Let an error be the outcome of the next task that waits; False if there is none."""
        while self._items:
            item = self._items.popleft()
            if item.starts():
                item.fail(error)
                return True
        return False

    def _hand_out(self) -> None:
        """Give a task to each worker that can take one."""
        if self._items and len(self._group.workers) < self._group.size:
            self._staff()
        self._spare = True
        while self._items and not self._gives_way():
            worker = self._free()
            if worker is None:
                self._spare = False
                return
            self._give_next(worker)

    def _cancel(self) -> None:
        self._cancelled = True
        kept = [item for item in self._emptied() if not item.cancel()]
        self._items.extendleft(reversed(kept))

    def _emptied(self) -> Iterator[WorkItem]:
        while self._items:
            yield self._items.popleft()

    def _free(self) -> WorkerProcess | None:
        """A worker that attends, or does so from now on, and has nothing to do."""
        if self._idle:
            return self._idle.pop()
        fresh = (worker for worker in self._group.workers if worker.ready and not worker.owes)
        return next(filter(self._attends, fresh), None)

    def _attends(self, worker: WorkerProcess) -> bool:
        """Have it attend; False if it is gone, which is seen in a moment."""
        path = self._paths[worker] = tuple(sys.path)
        worker.note()
        try:
            worker.pipe.ask(Attend(path))
        except Lost:
            return False
        return True

    def _give_next(self, worker: WorkerProcess) -> None:
        """Give it the next tasks that were not cancelled and travel."""
        items: list[WorkItem] = []
        tasks: list[Task] = []
        most, room = self._most(), ROOM
        while self._items and len(tasks) < most and room > 0:
            item = self._items.popleft()
            task = self._packed(item)
            if task is not None:
                items.append(item)
                tasks.append(task)
                room -= len(task.function) + len(task.arguments)
        if not tasks:
            self._idle.append(worker)
            return
        if self._paths[worker] != (path := tuple(sys.path)):
            self._paths[worker] = path
            self._send(worker, Attend(path), None)
        batch = TaskBatch(self._group.caller, worker.number, items)
        self._send(worker, batch.message(tasks), batch)
        self._begun = True

    def _most(self) -> int:
        """How many a worker may have: several of tiny ones, if there are enough for all."""
        if self._pace > TINY:
            return 1
        return max(1, min(MOST, len(self._items) // (2 * self._group.size)))

    def _packed(self, item: WorkItem) -> Task | None:
        """A task as it travels; None if it was cancelled, or does not."""
        if not item.starts():
            return None
        try:
            task = pack_task(item.function, item.args, item.keywords)
        except BaseException as error:  # noqa: BLE001  # pickling runs any code
            item.fail(error)
            return None
        if task.handles:
            self._group.registry.watch(task.handles)
        return task

    def _send(self, worker: WorkerProcess, message: object, batch: TaskBatch | None) -> None:
        self._busy[worker] = batch
        with suppress(Lost):  # its end is seen in a moment
            worker.pipe.send(message)

    def _take_back(self) -> None:
        """Take from workers what waits there behind a task, if it has to wait too long."""
        for worker, batch in list(self._busy.items()):
            if batch is not None and (batch.overdue or self._gives_way()):
                self._items.extendleft(reversed(batch.take_back()))
                if not batch.items:
                    del self._busy[worker]
                    self._idle.append(worker)

    def _forget(self) -> None:
        """Have workers unmap what has ended, as soon as they have nothing else to do."""
        if self._group.registry.ended:
            ended = self._group.registry.give_up_ended()
            for worker in self._group.workers:
                self._ended[worker] = self._ended.get(worker, frozenset()) | ended
        for worker in [worker for worker in self._ended if worker not in self._busy]:
            ended = self._ended.pop(worker)
            if worker in self._idle:
                self._idle.remove(worker)
            elif not worker.ready or not self._attends(worker):
                continue
            stale = worker.plans - self._group.registry.current()
            worker.plans -= stale
            self._send(worker, Forget(ended, tuple(stale)), None)

    def _take_in(self) -> None:
        """Wait for news, and take them."""
        self._take_back()
        patience = None if self._busy or self._items else LINGER
        if any(batch is not None and len(batch.items) > 1 for batch in self._busy.values()):
            patience = OVERDUE
        self._wakeup.asleep = True
        if self._urgent():
            patience = 0.0
        news = self._poller.news(patience)
        self._still = not self._busy and patience == LINGER and self._wakeup.asleep and not news
        self._wakeup.asleep = False
        if self._cancels() and not self._cancelled:
            self._cancel()  # what somebody was free to take was handed out before
        for worker in news:
            self._hear(worker)

    def _urgent(self) -> bool:
        """Whether there is something to do that came, or became possible, since we looked."""
        if self._gives_way():
            return not self._busy
        if not self._items:
            return False
        return self._spare or bool(self._idle) or (self._cancels() and not self._cancelled)

    def _hear(self, worker: WorkerProcess) -> None:
        try:
            messages = self._messages(worker)
        except Lost:
            self._lost(worker)
            return
        if isinstance(messages[0], Ready):
            worker.ready = True
            return
        batch = self._busy[worker]
        items: list[WorkItem] = []
        if batch is not None:
            items, self._pace = batch.answered(len(messages))
        try:
            if batch is None or not batch.items:
                del self._busy[worker]
                if self._gives_way() or worker in self._ended:
                    self._idle.append(worker)
                else:  # first: it goes on while we look at what it has done
                    self._give_next(worker)
        finally:
            for item, message in zip(items, messages, strict=False):
                self._settle(item, message)

    def _messages(self, worker: WorkerProcess) -> list[Any]:
        if not worker.ready:
            return [worker.pipe.answer()]
        if not worker.pipe.pending():
            raise Lost  # it ended, though a child of its own may hold the pipe open
        return worker.pipe.receive_all()

    def _settle(self, item: WorkItem, message: Result | Failure) -> None:
        """Tell the outcome of a task."""
        try:
            if isinstance(message, Failure):
                item.fail(unpack_error(message))
            else:
                item.succeed(unpack_result(message, item.function))
        except BaseException as error:  # noqa: BLE001  # unpickling runs any code
            item.fail(error)
        finally:
            if isinstance(message, Result) and message.given:
                self._group.registry.watch(message.given)

    def _lost(self, worker: WorkerProcess) -> None:
        """A worker died: so has its task, and no other one."""
        batch = self._busy.pop(worker, None)
        self._ended.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)
        how, pid, code = worker.ended(), worker.process.pid, worker.process.exitcode
        started = worker.ready
        if batch is not None:
            self._items.extendleft(reversed(batch.take_back()))
        self._group.drop(worker)
        self._poller = Poller(self._group.workers, self._wakeup)
        for item in () if batch is None else batch.items:
            error = f"worker {pid} was lost ({how}) while it ran {item.function.name}"
            item.fail(WorkerLostError(error, code))
        if not started:  # of whatever it dies, it may be so for the next one
            error = f"worker {pid} was lost ({how}) while it started; this task has not run"
            self._refused(WorkerLostError(error, code))

    def _dismiss(self) -> None:
        """Have those that attend rest."""
        for worker in self._idle:
            with suppress(Lost):  # noticed below
                worker.pipe.send(Rest())
        for worker in self._idle:
            try:
                worker.wait()
                worker.pipe.answer()
            except Lost:
                worker.ended()

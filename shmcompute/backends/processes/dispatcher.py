"""`Dispatcher`: hands out tasks to workers while it holds the lock of a pool.

The file is long because it is one class: all of its methods run under the lock of one pool.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from shmcompute.backends.processes import task_batch
from shmcompute.backends.processes.fair_lock import FairLock
from shmcompute.backends.processes.poller import Poller, Wakeup
from shmcompute.backends.processes.protocol import Lost, messages
from shmcompute.backends.processes.task_batch import TaskBatch, pack_item, settle
from shmcompute.backends.processes.worker_group import WorkerGroup
from shmcompute.backends.processes.worker_process import WorkerProcess
from shmcompute.errors import ShmComputeError, WorkerInitError, WorkerLostError
from shmcompute.storage import Handle
from shmcompute.system import recording
from shmcompute.system.surroundings import surroundings
from shmcompute.tasks import WorkItem

BATCH_BYTES = 1 << 14  # about how many bytes of tasks go together
LINGER = 0.002  # seconds that workers go on attending when there is nothing to do


class Dispatcher:
    """Gives tasks to workers that attend, and receives the outcomes.

    A worker gets a task only when it has none: one, or several tiny ones, of which it claims each
    before it begins it. So no task waits long behind another, and the death of a worker costs only
    the task that it had begun.

    Parameters
    ----------
    items : deque of WorkItem
        The tasks that wait; other threads append to it.
    cancels : callable
        Whether the tasks that no worker was free to take are to be cancelled.
    """

    def __init__(
        self,
        group: WorkerGroup,
        fair_lock: FairLock,
        wakeup: Wakeup,
        items: deque[WorkItem],
        cancels: Callable[[], bool],
    ) -> None:
        self._group = group
        self._fair_lock = fair_lock
        self._wakeup = wakeup
        self._items = items
        self._cancels = cancels
        # Each worker that attends is in one of these two.
        self._busy: dict[WorkerProcess, TaskBatch | None] = {}  # None: it forgets segments
        self._idle: list[WorkerProcess] = []
        self._ended: dict[WorkerProcess, frozenset[Handle]] = {}  # what each has still to forget
        self._pace = math.inf  # seconds that the latest task took
        self._cancelled = False
        self._spare = False  # whether a worker was free when the tasks had been handed out
        self._begun = False  # whether a task was handed out: before that no call goes first
        self._still = False  # whether there was no news for a while

    def complete(self) -> None:
        """Hand out tasks until there are none, or a call waits; then all workers are silent."""
        try:
            self._group.bury()
            self._staff()
            while not self._is_over():
                self._hand_out()
                self._take_in()
            self._dismiss()
        except BaseException as error:  # noqa: BLE001  # a fault of ours: it is every task's outcome
            self._group.silence()
            for batch in self._busy.values():
                self._items.extend(() if batch is None else batch.items)
            self._refuse(error)

    def _is_over(self) -> bool:
        self._forget()
        if self._busy:
            return False
        return self._gives_way() or (self._still and not self._items)

    def _gives_way(self) -> bool:
        """Whether a call waits that is to go first, now that tasks had their turn."""
        return self._fair_lock.wanted and (
            self._begun or not any(worker.ready for worker in self._group.workers)
        )

    def _staff(self) -> None:
        """Start workers that are missing, and watch all."""
        try:
            self._group.fill()
        except ShmComputeError as error:
            if not self._group.workers:
                self._refuse(error)
        self._poller = Poller(self._group.workers, self._wakeup)

    def _refuse(self, error: BaseException) -> None:
        """Make an error the outcome of every task that waits."""
        while self._fail_next(error):
            pass

    def _fail_next(self, error: BaseException) -> bool:
        """Make an error the outcome of the next task that waits; False if there is none."""
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

    def _cancel_waiting(self) -> None:
        self._cancelled = True
        waiting = [self._items.popleft() for _ in range(len(self._items))]
        kept = [item for item in waiting if not item.cancel()]
        self._items.extendleft(reversed(kept))

    def _free(self) -> WorkerProcess | None:
        """A worker that attends, or is made to attend, and has no task."""
        if self._idle:
            return self._idle.pop()
        fresh = (worker for worker in self._group.workers if worker.ready and not worker.owes)
        return next(filter(self._attends, fresh), None)

    def _attends(self, worker: WorkerProcess) -> bool:
        """Have a worker attend; False if it is gone, which the poller tells in a moment."""
        around = surroundings()
        worker.follow(around)
        worker.note()
        try:
            worker.pipe.ask(messages.Attend(around))
        except Lost:
            return False
        return True

    def _give_next(self, worker: WorkerProcess) -> None:
        """Give a worker the next tasks that were not cancelled and can be pickled."""
        items: list[WorkItem] = []
        tasks: list[messages.Task] = []
        most, space = self._most(worker), BATCH_BYTES
        while self._items and len(tasks) < most and space > 0:
            item = self._items.popleft()
            task = pack_item(item)
            if task is not None:
                self._group.registry.watch(task.handles)
                items.append(item)
                tasks.append(task)
                space -= len(task.function) + len(task.arguments)
        if not tasks:
            self._idle.append(worker)
            return
        if worker.follow(around := surroundings()):
            self._send(worker, messages.Attend(around), None)
        recording.handed_out((item.task for item in items), worker.lane, self._group.caller)
        batch = TaskBatch(self._group.caller, worker.number, items)
        self._send(worker, batch.message(tasks), batch)
        self._begun = True

    def _most(self, worker: WorkerProcess) -> float:
        """How many tasks a worker may have: several tiny ones, if there are enough for all."""
        if self._pace > task_batch.TINY:
            return 1
        share = max(1, min(task_batch.MOST, len(self._items) // (2 * self._group.size)))
        return min(share, self._group.tasks_left(worker))

    def _send(self, worker: WorkerProcess, message: object, batch: TaskBatch | None) -> None:
        self._busy[worker] = batch
        with suppress(Lost):  # the poller tells of its end in a moment
            worker.pipe.send(message)

    def _take_back(self) -> None:
        """Take back from workers tasks that wait there too long behind another one."""
        for worker, batch in list(self._busy.items()):
            if batch is not None and (batch.overdue or self._gives_way()):
                self._items.extendleft(reversed(batch.take_back()))
                if not batch.items:
                    del self._busy[worker]
                    self._idle.append(worker)

    def _forget(self) -> None:
        """Have workers unmap segments that have ended, as soon as they have no task."""
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
            self._send(worker, messages.Forget(ended, tuple(stale)), None)

    def _take_in(self) -> None:
        """Wait for news of workers, and receive it."""
        self._take_back()
        timeout = None if self._busy or self._items else LINGER
        if any(batch is not None and len(batch.items) > 1 for batch in self._busy.values()):
            timeout = task_batch.OVERDUE
        self._wakeup.asleep = True
        if self._urgent():
            timeout = 0.0
        news = self._poller.news(timeout)
        self._still = not self._busy and timeout == LINGER and self._wakeup.asleep and not news
        self._wakeup.asleep = False
        if self._cancels() and not self._cancelled:
            self._cancel_waiting()  # what somebody was free to take was handed out before
        for worker in news:
            if worker in self._group.workers:  # it was not let go of meanwhile
                self._hear(worker)

    def _urgent(self) -> bool:
        """Whether there is something to do since tasks were handed out."""
        if self._gives_way():
            return not self._busy
        if not self._items:
            return False
        return self._spare or bool(self._idle) or (self._cancels() and not self._cancelled)

    def _hear(self, worker: WorkerProcess) -> None:
        try:
            received = self._received(worker)
        except Lost:
            self._lost(worker)
            return
        if not worker.ready:
            self._greet(worker, received[0])
            return
        batch = self._busy[worker]
        items: list[WorkItem] = []
        if batch is not None:
            items, self._pace = batch.answered(len(received))
            worker.tasks += len(received)
        retires = self._group.tasks_left(worker) <= 0
        try:
            if batch is None or not batch.items:
                del self._busy[worker]
                if retires or self._gives_way() or worker in self._ended:
                    self._idle.append(worker)
                else:  # first: it goes on while the outcome is told
                    self._give_next(worker)
        finally:
            for item, message in zip(items, received, strict=False):
                settle(item, message)
                if isinstance(message, messages.Result):
                    self._group.registry.watch(message.given)
        if retires:
            self._retire(worker)

    def _retire(self, worker: WorkerProcess) -> None:
        """Have another one take the place of a worker that has done all its tasks.

        Not before the outcome of its last one was told: an array that it has made is there as long
        as it lives, or until the caller has taken it over.
        """
        self._idle.remove(worker)
        self._ended.pop(worker, None)
        self._group.retire(worker)
        self._staff()

    def _greet(self, worker: WorkerProcess, message: object) -> None:
        """A worker is ready; or it could not be initialized, of which all that waits fails."""
        try:
            self._group.greet(worker, message)
        except WorkerInitError as error:
            self._poller = Poller(self._group.workers, self._wakeup)
            self._refuse(error)

    def _received(self, worker: WorkerProcess) -> list[Any]:
        if not worker.ready:
            return [worker.pipe.answer()]
        if not worker.pipe.pending():
            raise Lost  # it ended, though a child of its own may hold the pipe open
        return worker.pipe.receive_all()

    def _lost(self, worker: WorkerProcess) -> None:
        """A worker died, and with it the task that it had begun."""
        batch = self._busy.pop(worker, None)
        self._ended.pop(worker, None)
        if worker in self._idle:
            self._idle.remove(worker)
        started, had_work = worker.ready, batch is not None and bool(batch.items)
        how = worker.ended(raised=had_work or not started)
        pid, code = worker.process.pid, worker.process.exitcode
        if batch is not None:
            self._items.extendleft(reversed(batch.take_back()))
        recording.take(self._group.caller)  # another one will write where its last record is
        self._group.drop(worker)
        self._poller = Poller(self._group.workers, self._wakeup)
        for item in () if batch is None else batch.items:
            error = f"worker {pid} was lost ({how}) while it ran {item.function.name}"
            item.fail(WorkerLostError(error, code))
        if not started:
            doing = self._group.starting
            lost = WorkerLostError(
                f"worker {pid} was lost ({how}) while it {doing}; this task has not run", code
            )
            if self._group.initializer is None:
                self._fail_next(lost)  # one, for the next worker may die of the same
            else:
                self._refuse(lost)  # it would die again

    def _dismiss(self) -> None:
        """Have all that attend rest: they are silent then."""
        for worker in self._idle:
            with suppress(Lost):  # noticed below
                worker.pipe.send(messages.Rest())
        for worker in self._idle:
            try:
                worker.wait()
                worker.pipe.answer()
            except Lost:
                worker.ended(raised=False)

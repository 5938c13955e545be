"""`Shift`: what the desk does with the workers while it has its turn."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

from shmcompute.backends.processes.batch import MOST, OVERDUE, TINY, Batch
from shmcompute.backends.processes.channel import (
    Attend,
    Failure,
    Forget,
    Lost,
    Ready,
    Rest,
    Result,
    Task,
)
from shmcompute.backends.processes.crew import Crew
from shmcompute.backends.processes.library import Library
from shmcompute.backends.processes.member import Member
from shmcompute.backends.processes.packing import pack_task, unpack_error, unpack_result
from shmcompute.backends.processes.turn import Turn
from shmcompute.backends.processes.wake import Wake
from shmcompute.backends.processes.watch import Watch
from shmcompute.call import Call
from shmcompute.errors import ShmComputeError, WorkerLostError
from shmcompute.storage import Handle

ROOM = 1 << 14  # bytes of tasks that go together, about
LINGER = 0.002  # seconds that members go on attending when there is nothing to do


class Shift:
    """Members that attend, and the tasks that they have: one each, or several tiny ones.

    They go only to a member that has none, and what it has not begun can be taken back. So no task
    waits for long behind another one, and a death leaves in doubt only what was begun.

    Parameters
    ----------
    calls : deque of Call
        The tasks that wait, to which others add.
    cancels : callable
        Whether those are cancelled that nobody was free to take.
    """

    def __init__(
        self,
        crew: Crew,
        library: Library,
        turn: Turn,
        wake: Wake,
        calls: deque[Call],
        cancels: Callable[[], bool],
    ) -> None:
        self._crew = crew
        self._library = library
        self._turn = turn
        self._wake = wake
        self._calls = calls
        self._cancels = cancels
        self._busy: dict[Member, Batch | None] = {}  # None: it forgets segments
        self._pace = math.inf  # seconds that the latest task took
        self._idle: list[Member] = []  # those that attend and are not busy
        self._ended: dict[Member, frozenset[Handle]] = {}  # what each has still to forget
        self._paths: dict[Member, tuple[str, ...]] = {}  # where each that attends looks for modules
        self._cancelled = False
        self._spare = False  # whether, when tasks were handed out, somebody went without
        self._begun = False  # whether a task was handed out: else calls that wait go on waiting
        self._still = False  # whether there were no news for a while

    def complete(self) -> None:
        """Hand out tasks until there are none, or a call waits; then all members are silent."""
        try:
            self._crew.bury()
            self._staff()
            while not self._over():
                self._hand_out()
                self._take_in()
            self._dismiss()
        except BaseException as error:  # noqa: BLE001  # a fault of ours: tell who waits for a task
            self._crew.silence()
            for batch in self._busy.values():
                self._calls.extend(() if batch is None else batch.calls)
            self._refuse(error)

    def _over(self) -> bool:
        self._forget()
        if self._busy:
            return False
        return self._gives_way() or (self._still and not self._calls)

    def _gives_way(self) -> bool:
        """Whether a call waits that is to go first. The desk has done something before it does."""
        return self._turn.wanted and (
            self._begun or not any(member.ready for member in self._crew.members)
        )

    def _staff(self) -> None:
        """Start who is missing, and watch who is there."""
        try:
            self._crew.fill()
        except ShmComputeError as error:
            if not self._crew.members:
                self._refuse(error)
        self._watch = Watch(self._crew.members, self._wake)

    def _refuse(self, error: BaseException) -> None:
        """There is nobody to do it: that is the outcome of every task that waits."""
        while self._refused(error):
            pass

    def _refused(self, error: BaseException) -> bool:
        """Let an error be the outcome of the next task that waits; False if there is none."""
        while self._calls:
            call = self._calls.popleft()
            if call.starts():
                call.fail(error)
                return True
        return False

    def _hand_out(self) -> None:
        """Give a task to each member that can take one."""
        if self._calls and len(self._crew.members) < self._crew.size:
            self._staff()
        self._spare = True
        while self._calls and not self._gives_way():
            member = self._free()
            if member is None:
                self._spare = False
                return
            self._give_next(member)

    def _cancel(self) -> None:
        self._cancelled = True
        kept = [call for call in self._emptied() if not call.cancel()]
        self._calls.extendleft(reversed(kept))

    def _emptied(self) -> Iterator[Call]:
        while self._calls:
            yield self._calls.popleft()

    def _free(self) -> Member | None:
        """A member that attends, or does so from now on, and has nothing to do."""
        if self._idle:
            return self._idle.pop()
        fresh = (member for member in self._crew.members if member.ready and not member.owes)
        return next(filter(self._attends, fresh), None)

    def _attends(self, member: Member) -> bool:
        """Have it attend; False if it is gone, which is seen in a moment."""
        path = self._paths[member] = tuple(sys.path)
        try:
            member.ask(Attend(path))
        except Lost:
            return False
        return True

    def _give_next(self, member: Member) -> None:
        """Give it the next tasks that were not cancelled and travel."""
        calls: list[Call] = []
        tasks: list[Task] = []
        most, room = self._most(member), ROOM
        while self._calls and len(tasks) < most and room > 0:
            call = self._calls.popleft()
            task = self._packed(call)
            if task is not None:
                calls.append(call)
                tasks.append(task)
                room -= len(task.function) + len(task.arguments)
        if not tasks:
            self._idle.append(member)
            return
        if self._paths[member] != (path := tuple(sys.path)):
            self._paths[member] = path
            self._send(member, Attend(path), None)
        batch = Batch(member, calls)
        self._send(member, batch.message(tasks), batch)
        self._begun = True

    def _most(self, member: Member) -> int:
        """How many it may have: several only of tiny ones, of which there are enough for all."""
        if member.bell is None or self._pace > TINY:
            return 1
        return max(1, min(MOST, len(self._calls) // (2 * self._crew.size)))

    def _packed(self, call: Call) -> Task | None:
        """A task as it travels; None if it was cancelled, or does not."""
        if not call.starts():
            return None
        try:
            task = pack_task(call.function, call.args, call.keywords)
        except BaseException as error:  # noqa: BLE001  # pickling runs any code
            call.fail(error)
            return None
        if task.handles:
            self._library.watch(task.handles)
        return task

    def _send(self, member: Member, message: object, batch: Batch | None) -> None:
        self._busy[member] = batch
        with suppress(Lost):  # its end is seen in a moment
            member.channel.send(message)

    def _take_back(self) -> None:
        """Take from members what waits there behind a task, if it has to wait too long."""
        for member, batch in list(self._busy.items()):
            if batch is not None and (batch.overdue or self._gives_way()):
                self._calls.extendleft(reversed(batch.take_back()))
                if not batch.calls:
                    del self._busy[member]
                    self._idle.append(member)

    def _forget(self) -> None:
        """Have members unmap what has ended, as soon as they have nothing else to do."""
        if self._library.outdated():
            ended = self._library.give_up()
            for member in self._crew.members:
                self._ended[member] = self._ended.get(member, frozenset()) | ended
        for member in [member for member in self._ended if member not in self._busy]:
            ended = self._ended.pop(member)
            if member in self._idle:
                self._idle.remove(member)
            elif not member.ready or not self._attends(member):
                continue
            stale = self._library.stale(member.plans)
            member.plans.difference_update(stale)
            self._send(member, Forget(ended, stale), None)

    def _take_in(self) -> None:
        """Wait for news, and take them."""
        self._take_back()
        patience = None if self._busy or self._calls else LINGER
        if any(batch is not None and len(batch.calls) > 1 for batch in self._busy.values()):
            patience = OVERDUE
        self._wake.asleep = True
        if self._urgent():
            patience = 0.0
        news = self._watch.news(patience)
        self._still = not self._busy and patience == LINGER and self._wake.asleep and not news
        self._wake.asleep = False
        if self._cancels() and not self._cancelled:
            self._cancel()  # what somebody was free to take was handed out before
        for member in news:
            self._hear(member)

    def _urgent(self) -> bool:
        """Whether there is something to do that came, or became possible, since we looked."""
        if self._gives_way():
            return not self._busy
        if not self._calls:
            return False
        return self._spare or bool(self._idle) or (self._cancels() and not self._cancelled)

    def _hear(self, member: Member) -> None:
        try:
            messages = member.hear() if member.ready else [member.answer()]
        except Lost:
            self._lost(member)
            return
        if isinstance(messages[0], Ready):
            member.ready = True
            return
        batch = self._busy[member]
        calls: list[Call] = []
        if batch is not None:
            calls, self._pace = batch.answered(len(messages))
        try:
            if batch is None or not batch.calls:
                del self._busy[member]
                if self._gives_way() or member in self._ended:
                    self._idle.append(member)
                else:  # first: it goes on while we look at what it has done
                    self._give_next(member)
        finally:
            for call, message in zip(calls, messages, strict=False):
                self._settle(call, message)

    def _settle(self, call: Call, message: Result | Failure) -> None:
        """Tell the outcome of a task."""
        try:
            if isinstance(message, Failure):
                call.fail(unpack_error(message))
            else:
                call.succeed(unpack_result(message, call.function))
        except BaseException as error:  # noqa: BLE001  # unpickling runs any code
            call.fail(error)
        finally:
            if isinstance(message, Result) and message.given:
                self._library.watch(message.given)

    def _lost(self, member: Member) -> None:
        """A member died: so has its task, and no other one."""
        batch = self._busy.pop(member, None)
        self._ended.pop(member, None)
        if member in self._idle:
            self._idle.remove(member)
        how, pid, code = member.ended(), member.process.pid, member.process.exitcode
        started = member.ready
        if batch is not None:
            self._calls.extendleft(reversed(batch.take_back()))
        self._crew.drop(member)
        self._watch = Watch(self._crew.members, self._wake)
        for call in () if batch is None else batch.calls:
            error = f"worker {pid} was lost ({how}) while it ran {call.function.name}"
            call.fail(WorkerLostError(error, code))
        if not started:  # of whatever it dies, it may be so for the next one
            error = f"worker {pid} was lost ({how}) while it started; this task has not run"
            self._refused(WorkerLostError(error, code))

    def _dismiss(self) -> None:
        """Have those that attend rest."""
        for member in self._idle:
            with suppress(Lost):  # noticed below
                member.channel.send(Rest())
        for member in self._idle:
            try:
                member.wait()
                member.answer()
            except Lost:
                member.ended()

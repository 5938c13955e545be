"""One run of one plan on workers that hold it: deal, collect, and on any trouble quiesce.

However a run ends, no worker writes when `complete` returns or raises: each has answered, or has
been killed and joined.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from shmcompute.arguments import Values
from shmcompute.backends.base import overrun, raise_first, seconds_to
from shmcompute.backends.processes import channel as messages
from shmcompute.backends.processes.channel import Lost
from shmcompute.backends.processes.member import Member, kill_all
from shmcompute.backends.processes.packing import unpack_error
from shmcompute.backends.processes.waiting import wait
from shmcompute.errors import WorkerLostError
from shmcompute.partition import dealt
from shmcompute.plan import Plan

GRACE = 0.5  # seconds that workers have to end their chunk, once the call is lost


class Run:
    """What is left to do, who does what, and what went wrong first."""

    def __init__(
        self,
        plan: Plan,
        values: Values,
        number: int,
        members: Sequence[Member],
        timeout: float | None,
        deadline: float | None,
    ) -> None:
        self._plan = plan
        self._values = values
        self._number = number
        self._members = members
        self._timeout = timeout
        self._deadline = deadline
        self._queue: deque[int] = deque()  # chunks that no one has yet (not of a static plan)
        self._mine: deque[int] = deque()  # chunks of the caller's own
        self._busy: dict[Member, set[int]] = {}
        self._errors: list[BaseException] = []  # the first counts
        self._undefined: list[int] = []

    def complete(self, *, caller_runs: bool) -> None:
        """Run every chunk, or raise what went wrong once nobody writes any more."""
        try:
            self._deal(caller_runs)
            while self._busy or self._mine:
                self._own_chunk(caller_runs)
                self._collect(self._patience())
        except BaseException:  # Ctrl-C, or the caller's own chunk failed
            self._stop()
            raise
        finally:
            self._quiesce(GRACE)
        raise_first(self._errors)

    def _deal(self, caller_runs: bool) -> None:
        count = len(self._plan.chunks)
        if self._plan.static:
            shares: list[Iterable[int]] = list(dealt(count, len(self._members) + caller_runs))
            if caller_runs:
                self._mine.extend(shares.pop(0))
            for member, share in zip(self._members, shares, strict=False):
                self._give(member, tuple(share))
            return
        self._queue.extend(range(count))
        for member in self._members:
            self._give_next(member)
        self._take_next(caller_runs)

    def _give(self, member: Member, numbers: tuple[int, ...]) -> None:
        if self._errors:
            return  # another one was lost while we dealt
        self._busy[member] = set(numbers)
        try:
            member.ask(messages.Run(self._number, numbers, self._values))
        except Lost:
            self._lost(member)

    def _give_next(self, member: Member) -> None:
        if self._queue:
            self._give(member, (self._queue.popleft(),))

    def _take_next(self, caller_runs: bool) -> None:
        if caller_runs and self._queue:
            self._mine.append(self._queue.popleft())

    def _own_chunk(self, caller_runs: bool) -> None:
        if self._mine:
            self._plan.run_chunk(self._mine.popleft(), self._values)
            self._take_next(caller_runs)

    def _patience(self) -> float | None:
        """Seconds to wait for answers: none while the caller has chunks of its own."""
        if self._mine:
            return 0.0
        return seconds_to(self._deadline)

    def _collect(self, patience: float | None) -> None:
        """Take the answers that are there; an overrun call loses the workers that are busy."""
        for member in self._answering(patience):
            if member not in self._busy:
                continue  # settled, or killed, when another one was lost
            try:
                answer = member.answer()
            except Lost:
                self._lost(member)
                continue
            self._take(member, answer)
        working = self._busy or self._mine
        if working and self._deadline is not None and time.monotonic() >= self._deadline:
            self._overrun()

    def _overrun(self) -> None:
        """The call takes too long: the workers that are busy are lost."""
        self._undefined.extend([*self._queue, *self._mine])  # not reached
        self._stop()
        self._kill()
        if not self._errors:
            self._errors.append(overrun(self._plan, self._timeout, self._undefined))

    def _answering(self, patience: float | None) -> list[Member]:
        """Busy members that have answered or are gone."""
        if not self._busy:
            return []
        waited: dict[Any, Member] = {member.channel: member for member in self._busy}
        waited |= {member.end: member for member in self._busy}
        found = {waited[ready] for ready in wait(list(waited), patience)}
        return [member for member in self._busy if member in found]

    def _take(self, member: Member, answer: messages.Ran) -> None:
        left = self._busy.pop(member) - set(answer.done)
        if answer.failure is not None:
            self._fail(unpack_error(answer.failure))
        elif left and not self._errors:  # it was told to stop by nobody
            self._fail(RuntimeError(f"worker {member.process.pid} left chunks {sorted(left)}"))
        elif not self._errors:
            self._give_next(member)

    def _fail(self, error: BaseException) -> None:
        """Keep the first error and stop."""
        if not self._errors:
            self._errors.append(error)
        self._stop()

    def _stop(self) -> None:
        """Hand out no more, and tell the busy to stop at their next chunk."""
        self._queue.clear()
        self._mine.clear()
        for member in self._busy:
            with suppress(Lost):  # noticed where its answer is awaited
                member.channel.send(messages.Stop())

    def _lost(self, member: Member) -> None:
        """A worker died at its work: the call is lost, and all others are to stop writing."""
        how = member.ended()
        self._undefined.extend([*self._busy.pop(member), *self._queue, *self._mine])
        self._stop()
        self._quiesce(GRACE)
        if not self._errors:
            self._errors.append(lost(self._plan, member, sorted(self._undefined), how))

    def _quiesce(self, grace: float) -> None:
        """Let the busy end their chunk, for a while; then kill."""
        until = time.monotonic() + grace
        try:
            while self._busy and (left := until - time.monotonic()) > 0:
                for member in self._answering(left):
                    self._settle(member)
        finally:
            self._kill()

    def _settle(self, member: Member) -> None:
        try:
            done = set(member.answer().done)
        except Lost:
            done = set()
            # It is dead, or an interrupt came in the middle of its answer, and what is left of that
            # makes no sense: then it would not end by itself.
            member.kill()
        self._undefined.extend(self._busy.pop(member) - done)

    def _kill(self) -> None:
        """End the busy; what they had is undefined."""
        kill_all(list(self._busy))
        while self._busy:
            self._undefined.extend(self._busy.popitem()[1])


def lost(
    plan: Plan,
    member: Member,
    numbers: Sequence[int],
    how: str,
) -> WorkerLostError:
    """The error of a call whose worker died, with these chunks not known to be done."""
    chunks = [plan.chunks[number] for number in numbers]
    return WorkerLostError(
        f"worker {member.process.pid} was lost ({how}) while it ran kernel {plan.name}; the "
        f"content of chunks {_listed(chunks)} is undefined",
        member.process.exitcode,
        chunks,
    )


def _listed(chunks: Sequence[tuple[int, int]]) -> str:
    told = ", ".join(f"[{start}, {stop})" for start, stop in chunks[:4])
    return told + (f" and {len(chunks) - 4} more" if len(chunks) > 4 else "")

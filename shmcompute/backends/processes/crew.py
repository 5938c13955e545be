"""`Crew`: the workers of a pool as its parent sees them, all together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.context import BaseContext

from shmcompute import cores
from shmcompute.backends.base import raise_first, seconds_to
from shmcompute.backends.processes.channel import Loaded, Lost, Ready
from shmcompute.backends.processes.hall import Hall
from shmcompute.backends.processes.member import Member, kill_all
from shmcompute.backends.processes.packing import unpack_error
from shmcompute.errors import (
    KernelSerializationError,
    KernelTimeoutError,
    ShmComputeError,
    WorkerLostError,
)


class Crew:
    """Starts members, replaces those that died, asks them all.

    Who calls its methods holds the pool's lock.

    Parameters
    ----------
    size : int
        How many members there are to be.
    threads : int
        How many each may use.
    first : int or None
        The core of the first member, if each is to be bound to one.
    """

    def __init__(
        self,
        context: BaseContext,
        size: int,
        threads: int,
        hall: Hall | None,
        first: int | None = None,
    ) -> None:
        self.size = size
        self.members: list[Member] = []  # by number
        self._context = context
        self._threads = threads
        self._hall = hall
        self._first = first

    def staff(self) -> None:
        """Replace members that died and start those that are missing."""
        self.bury()
        self.fill()

    def bury(self) -> None:
        """Let go of those that died."""
        for member in [member for member in self.members if not member.alive]:
            self.drop(member)

    def fill(self) -> None:
        """Start those that are missing. The dead stay, for who has still to hear what they said."""
        before = len(self.members)
        try:
            self._start_missing()
        finally:  # also if one could not be started
            if self._hall is not None and before != len(self.members):
                self._hall.watch(self.members)

    def _start_missing(self) -> None:
        here = {member.number for member in self.members}
        for number in sorted(set(range(self.size)) - here):
            seat = () if self._hall is None else self._hall.seat(number)
            member = Member(self._context, number, self._threads, *seat)
            self.members.insert(number, member)
            if self._first is not None:
                with suppress(OSError):  # it died, which is noticed where it is needed
                    cores.pin(member.process.pid, number + self._first)

    def drop(self, member: Member) -> None:
        """One is dead, and must not be rung for."""
        self.members.remove(member)
        try:
            member.close()
        finally:
            if self._hall is not None:
                self._hall.watch(self.members)

    def silence(self) -> None:
        """End members that owe an answer: the call was interrupted before it came."""
        kill_all([member for member in self.members if member.owes])

    def await_ready(self, members: Sequence[Member], deadline: float | None) -> None:
        """Return when these have said that they take messages."""
        for member in members:
            if member.ready:
                continue
            if not member.wait(seconds_to(deadline)):
                kill_all([member for member in members if member.stopped])  # it would never start
                raise KernelTimeoutError(
                    "workers were not ready in time; nothing has run, and they go on starting"
                )
            member.ready = isinstance(_answer(member, "started"), Ready)

    def ask(
        self,
        members: Sequence[Member],
        message: Callable[[Member], object],
        done: Callable[[Member], None],
        deadline: float | None,
    ) -> None:
        """Send each a message, wait for all their answers, then raise the first failure.

        Who has not answered by the deadline goes on owing: see `silence`.
        """
        errors: list[BaseException] = []
        for member in members:
            with suppress(Lost):  # noticed below
                member.ask(message(member))
        for member in members:
            try:
                if not member.wait(seconds_to(deadline)):
                    raise KernelTimeoutError(
                        f"worker {member.process.pid} did not answer in time; nothing has run"
                    )
                answer = _answer(member, "took a plan")
            except (KernelTimeoutError, WorkerLostError) as error:
                errors.append(error)
                continue
            if isinstance(answer, Loaded) and answer.failure is not None:
                errors.append(_refused(unpack_error(answer.failure)))
            else:
                done(member)
        raise_first(errors)


def _answer(member: Member, doing: str) -> object:
    """The answer that a member owes. Its death is an error of the call."""
    try:
        member.wait()
        return member.answer()
    except Lost:
        how = member.ended()
        raise WorkerLostError(
            f"worker {member.process.pid} was lost ({how}) while it {doing}; nothing has run. "
            "The next call starts another one",
            member.process.exitcode,
        ) from None


def _refused(error: BaseException) -> BaseException:
    """What a worker said when a plan did not unpack there, as an error of the call."""
    if isinstance(error, ShmComputeError):
        return error
    wrapped = KernelSerializationError(
        f"a worker can't unpack this call: {type(error).__name__}: {error}. What the kernel "
        "imports must be importable there too; nothing has run"
    )
    wrapped.__cause__ = error.__cause__
    return wrapped

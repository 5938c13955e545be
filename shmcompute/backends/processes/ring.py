"""One run of one plan by doorbell: ring, do the own share, and on any trouble quiesce.

The same promise as in `run`: when `complete` returns or raises, each worker has answered, or has
been killed and joined.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

from shmcompute import cores
from shmcompute.arguments import Values
from shmcompute.backends.base import overrun, raise_first, seconds_to
from shmcompute.backends.doorbell import Bell, Seat, unveiled
from shmcompute.backends.processes.channel import Lost
from shmcompute.backends.processes.member import Member, kill_all
from shmcompute.backends.processes.packing import unpack_error
from shmcompute.backends.processes.run import GRACE, lost
from shmcompute.plan import Plan


class Ring:
    """Who was rung for which plan, and what came of it.

    `own` is the caller's seat, if it takes a share; `deaths` tells by one call whether anybody of
    the pool has ended; `held` changes when members may drop plans. A plan keeps its ring, so a ring
    does not refer to its plan.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        members: Sequence[Member],
        bell: Bell,
        own: Seat | None,
        timeout: float | None,
        deadline: float | None,
        deaths: select.poll,
        held: object,
    ) -> None:
        self.held = held
        self._number = number
        self._members = members
        self._bell = bell
        self._own = own
        self._timeout = timeout
        self._deadline = deadline
        self._late = False  # whether the deadline has passed
        self._deaths = deaths
        # How far it is from one chunk of a worker to its next; 0 if that is not known before.
        self._step = len(members) + (own is not None) if plan.static else 0
        self._run: Callable[[], bool] | None = None  # unless Python has to do the own share
        frame = plan.frame if own is not None and deadline is None else None
        if own is None or frame is not None:
            self._run = bell.bound(
                number, len(members), own=own is not None, frame=frame, step=self._step
            )

    def complete(self, plan: Plan, values: Values) -> None:
        """Run every chunk, or raise what went wrong once nobody writes any more."""
        try:
            if self._run is None:
                self._bell.ring(self._number, len(self._members), own=True, step=self._step)
                self._own_share(plan, values)
            elif self._run():
                return
            self._await()
        except Exception as failure:  # noqa: BLE001  # of the own chunk
            self._bell.stop()
            self._quiesce(seconds_to(self._deadline))
            raise unveiled(failure) from failure.__cause__
        except BaseException:  # Ctrl-C
            self._bell.stop()
            self._quiesce()
            raise
        raised, gone = self._quiesce()
        if self._bell.crowded():
            cores.leave_mine(member.process.pid for member in self._members)
        self._judge(plan, raised, gone)
        raise_first(raised)

    def _own_share(self, plan: Plan, values: Values) -> None:
        assert self._own is not None  # noqa: S101  # for the type checker
        self._own.run(plan, values, self._deadline)

    def _await(self) -> None:
        """Until all have answered, one is lost, or the time is up."""
        for member in [member for member in self._members if self._bell.late(member.number)][:1]:
            cores.bring(member.process.pid)
        while not self._lost():
            if self._bell.finished():
                return
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._late = True
                break
        self._bell.stop()

    def _lost(self) -> bool:
        """Whether one has ended that owes an answer."""
        return bool(self._deaths.poll(0)) and not all(member.alive for member in self._owing())

    def _owing(self) -> list[Member]:
        return [member for member in self._members if self._bell.owes(member.number)]

    def _quiesce(self, grace: float | None = GRACE) -> tuple[list[BaseException], list[Member]]:
        """Let those at work end their chunk, for a while; then kill them. The late have had it.

        Returns
        -------
        tuple of list
            What kernels raised in workers; the workers that are gone.
        """
        until = time.monotonic() + (0.0 if self._late else float("inf") if grace is None else grace)
        try:
            while any(member.alive for member in self._owing()) and time.monotonic() < until:
                self._bell.finished()
        finally:
            gone = self._owing()
            kill_all(gone)
        raised = []
        patience = None if self._deadline is None else GRACE  # it is on its way
        for member in self._members:
            if member not in gone and self._bell.failed(member.number):
                try:
                    raised.append(unpack_error(member.failure(patience)))
                except Lost:
                    gone.append(member)
        return raised, gone

    def _judge(self, plan: Plan, raised: list[BaseException], gone: list[Member]) -> None:
        """Put first among what was raised what went wrong, now that nobody writes."""
        if self._own is not None and (own := self._own.error(plan)) is not None:
            raised.insert(0, own)
        if raised:
            return
        numbers = [member.number for member in self._members]
        if self._own is not None:
            numbers.append(self._own.number)
        undone = sorted(self._bell.undone(len(plan.chunks), numbers, self._step))
        passed = self._deadline is not None and time.monotonic() >= self._deadline
        if self._late or (undone and not gone and passed):
            raised.append(overrun(plan, self._timeout, undone))
        elif gone:
            raised.append(lost(plan, gone[0], undone, gone[0].ended()))
        elif undone:
            raised.append(RuntimeError(f"chunks {undone} were left; this is a fault of shmcompute"))

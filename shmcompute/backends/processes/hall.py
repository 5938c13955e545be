"""`Hall`: the doorbell of a pool, who sits at it, and which plans they are known to hold."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence

from shmcompute.arguments import Values
from shmcompute.backends.doorbell import Bell, Block, Seat, spin
from shmcompute.backends.processes.member import Member
from shmcompute.backends.processes.place import Place
from shmcompute.backends.processes.ring import Ring
from shmcompute.plan import Plan

# Seconds for which workers that were seen alive count as alive. Who dies within them is found a
# moment later, as if it had died in the run.
TRUST = 1e-4


class Hall:
    """One control block, for the life of a pool; its workers may be replaced.

    Invariant: a plan whose ring has our `_held` is held by all members of that ring, and they are
    alive unless `_deaths` says otherwise.
    """

    def __init__(self, workers: int, *, caller_runs: bool) -> None:
        count = workers - caller_runs
        # Who only waits, the caller, must not take a core that a worker needs.
        turns = spin(count + 1)
        self._block = Block(count)
        self._turns = turns
        self.bell = Bell(self._block, turns)
        self._own = Seat(self._block, count, turns) if caller_runs else None
        self._held = object()
        self._deaths = select.poll()
        self._seen = 0.0  # when all were alive

    def seat(self, number: int) -> tuple[Bell, Place]:
        """What a new member needs."""
        return self.bell, Place(self._block.fd, self._block.workers, number, self._turns)

    def watch(self, members: Sequence[Member]) -> None:
        """These are the members from now on."""
        self._held = object()
        self._deaths = select.poll()
        self._seen = 0.0
        for member in members:
            self._deaths.register(member.end, select.POLLIN)

    def ring(
        self,
        plan: Plan,
        number: int,
        members: Sequence[Member],
        timeout: float | None,
        deadline: float | None,
        *,
        own: bool,
    ) -> Ring:
        """A run of a plan that these members hold; `own`: the caller takes a share."""
        seat = self._own if own else None
        watch = self._deaths, self._held
        ring = Ring(plan, number, members, self.bell, seat, timeout, deadline, *watch)
        if timeout is None:
            plan.kept["ring"] = ring
        return ring

    def holds(self, ring: Ring) -> bool:
        """Whether its members still hold its plan, and live, so that it can be run again."""
        if ring.held is not self._held:
            return False
        now = time.monotonic()
        if now - self._seen < TRUST:
            return True
        if self._deaths.poll(0):
            return False  # to whoever asks next, too
        self._seen = now
        return True

    def forget(self) -> None:
        """Members may no longer hold what they held."""
        self._held = object()

    def tell(self, values: Values) -> None:
        """Put the numbers of the next run where workers read them."""
        if values:
            self._block.tell(values)

    def close(self) -> None:
        """Give back the descriptor."""
        self._block.close()

"""`Watch`: waits for news from members, or for a wake-up."""

from __future__ import annotations

import select
from collections.abc import Iterable
from multiprocessing import connection
from typing import Any

from shmcompute.backends.processes.member import Member
from shmcompute.backends.processes.wake import Wake


class Watch:
    """Who has said something or ended, of these members.

    Where there is `poll` what is waited for is registered once: `connection.wait` would do that
    each time.
    """

    def __init__(self, members: Iterable[Member], wake: Wake) -> None:
        self._wake = wake
        self._members: dict[int, Member | None] = {wake.fileno(): None}
        for member in members:
            self._members[member.channel.fileno()] = self._members[member.end] = member
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            for descriptor in self._members:
                self._poll.register(descriptor, select.POLLIN)

    def news(self, patience: float | None) -> list[Member]:
        """Members that have something to tell, as soon as there are any; or a wake-up came."""
        members = dict.fromkeys(map(self._members.__getitem__, self._ready(patience)))
        if None in members:
            self._wake.clear()
            del members[None]
        return [member for member in members if member is not None]

    def _ready(self, patience: float | None) -> Iterable[Any]:
        if self._poll is None:
            return connection.wait(list(self._members), patience)
        milliseconds = None if patience is None else patience * 1000
        return (descriptor for descriptor, _ in self._poll.poll(milliseconds))

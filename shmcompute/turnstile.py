"""`Turnstile`: how slots are taken and given back, waited for, and had again from the dead."""

from __future__ import annotations

import os
import secrets
import time
from typing import Protocol

from shmcompute import config, slots, words
from shmcompute.storage import Ground, Segment
from shmcompute.storage.ground import FIRST

TOKENS = FIRST | 1 << 56  # where the bytes of tokens begin
SLICE = 0.1  # seconds that one sleeps at most before looking after the others
_SOON, _LATE = 5e-5, 2e-3  # seconds between two looks where nobody wakes us


class Step(Protocol):
    """A jitted function of `slots`."""

    def __call__(self, base: int, count: int, me: int, /, *args: int) -> int: ...


class Member:
    """A process that uses slots: a token, and a byte that is locked while it lives."""

    def __init__(self, segment: Segment) -> None:
        self.pid = os.getpid()
        self.token = secrets.randbits(48) + 1
        self._ground: Ground = segment.ground()
        self._ground.take(TOKENS + self.token)

    def knows_dead(self, token: int) -> bool:
        """Whether a token is that of a process that has died."""
        return token not in (0, self.token) and not self._ground.taken(TOKENS + token)


class Turnstile:
    """The words of some slots, as this process uses them.

    Parameters
    ----------
    segment : Segment
        Where they stand, at the beginning.
    base : int
        Their address here; the segment must stay mapped.
    count : int
        How many slots there are.
    """

    def __init__(self, segment: Segment, base: int, count: int) -> None:
        self.base, self.count = base, count
        self._segment = segment
        self._parks = _parks()
        self._members: dict[int, Member] = {}
        self.member()  # now, while the segment has its name

    def word(self, at: int) -> int:
        """What stands in a word."""
        return int(slots.word(self.base + at))

    def old(self, slot: int) -> int:
        """The word that a slot had when it was taken."""
        return int(slots.word(slots.old(self.base, self.count, slot)))

    def between(self, first: int, last: int) -> int:
        """How many slots stand in a ring, at this moment."""
        return min(max(self.word(last) - self.word(first), 0), self.count)

    @property
    def closed(self) -> bool:
        """Whether no more slots are reserved."""
        return self.word(slots.CLOSED) != 0

    def close(self) -> None:
        """Let no more slots be reserved."""
        self.done([], slots.close, self.member())
        self.wake_all()

    def member(self) -> Member:
        """What others see of our process. A forked child is another one."""
        pid = os.getpid()
        member = self._members.get(pid)
        if member is None:
            member = self._members.setdefault(pid, Member(self._segment))
        return member

    def claim(
        self, got: list[int], function: Step, member: Member, word: int, timeout: float | None
    ) -> int:
        """Have a function put a slot's number into a list; its number, or why there is none.

        It waits for one; `word` counts what may make one available.
        """
        end = None if timeout is None else time.monotonic() + timeout
        pause = _SOON
        while True:
            seen = self.word(word)
            if (slot := self.done(got, function, member)) != slots.NOTHING:
                return slot
            got.clear()
            left = SLICE if end is None else min(SLICE, end - time.monotonic())
            if left <= 0:
                return slots.NOTHING
            if self._parks:
                slots.park(self.base + word, seen, int(left * 1e9))
            else:
                time.sleep(min(pause, left))
                pause = min(2 * pause, _LATE)
            if self.word(word) == seen:
                self._recover(member)

    def done(self, answers: list[int], function: Step, member: Member, *args: int) -> int:
        """Have a function run that needs the lock; what it returns.

        That stands in the list, too, before the handler of any signal can run: so whoever is
        interrupted knows what was done, and nothing is done twice or forgotten.
        """
        while True:
            given = (self.base, self.count, member.token, *args)
            answers.extend(map(function, *zip(given)))
            if answers[-1] != slots.BUSY:
                return answers[-1]
            self._relieve(member)

    def _relieve(self, member: Member) -> None:
        """Somebody has the lock for long: he may be dead."""
        holder = self.word(slots.LOCK)
        if member.knows_dead(holder):
            slots.seize(self.base, self.count, member.token, holder)
            self.wake_all()
        else:
            time.sleep(_SOON)

    def _recover(self, member: Member) -> None:
        """Free what the dead held."""
        asked, slot = set(), 0
        while slot < self.count:
            holder, slot = slots.holder(self.base, self.count, slot)
            slot += 1
            if holder not in asked and member.knows_dead(holder):
                self.done([], slots.reclaim, member, holder)
                self.wake_all()
            asked.add(holder)

    def wake(self, word: int) -> None:
        """Wake one of those who sleep on a word."""
        if words.available():
            slots.wake_one(self.base + word)

    def wake_all(self) -> None:
        """Wake all who sleep."""
        if words.available():
            slots.wake_everybody(self.base + slots.ITEMS)
            slots.wake_everybody(self.base + slots.SPACE)


def _parks() -> bool:
    """Whether who waits sleeps until he is woken; else he looks again and again."""
    default = "doorbell" if words.available() else "pipe"
    return config.chosen("channel", None, "CHANNEL", config.CHANNELS, default) == "doorbell"

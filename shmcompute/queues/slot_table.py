"""`SlotTable`: how slots are taken and given back, waited for, and had again from the dead."""

from __future__ import annotations

import os
import secrets
import time
from typing import Protocol

from shmcompute.queues import slot_ring
from shmcompute.storage import Segment
from shmcompute.system import atomic_words
from shmcompute.system.file_locks import FIRST, FileLocks
from shmcompute.system.unpatched import give_way

TOKENS = FIRST | 1 << 56  # where the bytes of tokens begin
SLICE = 0.1  # seconds that a process sleeps at most before it looks for slots of the dead
COURTESY = 0.1  # seconds that who would not wait waits for the lock
# Seconds to sleep where a living process has the lock for long: first, and at most
_BUSY, _LONGEST_NAP = 5e-5, 5e-3


class LockedStep(Protocol):
    """A jitted function of `slot_ring` that needs the lock."""

    def __call__(self, base: int, count: int, me: int, /, *args: int) -> int: ...


class Participant:
    """A process that uses slots: a random token, and a byte of the file that it has locked.

    The kernel drops that lock when the process dies, however it dies.
    """

    def __init__(self, segment: Segment) -> None:
        self.pid = os.getpid()
        self.token = secrets.randbits(48) + 1
        self._locks: FileLocks = segment.locks()
        self._locks.take(TOKENS + self.token)

    def knows_dead(self, token: int) -> bool:
        """Whether a token is that of a process that has died."""
        return token not in (0, self.token) and not self._locks.taken(TOKENS + token)


class SlotTable:
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
        slot_ring.prepare()
        self.base, self.count = base, count
        self._segment = segment
        self._polls = int(not atomic_words.waits_by_futex())
        self._participants: dict[int, Participant] = {}
        self.participant()  # now, while the segment has its name

    def word(self, at: int) -> int:
        """What stands in a word."""
        return int(slot_ring.word(self.base + at))

    def old(self, slot: int) -> int:
        """The word that a slot had when it was taken."""
        return int(slot_ring.word(slot_ring.old(self.base, self.count, slot)))

    def between(self, first: int, last: int) -> int:
        """How many slots stand in a ring, at this moment."""
        return min(max(self.word(last) - self.word(first), 0), self.count)

    @property
    def closed(self) -> bool:
        """Whether no more slots are reserved."""
        return self.word(slot_ring.CLOSED) != 0

    def close(self) -> None:
        """Let no more slots be reserved."""
        slot_ring.close(self.base)
        self.wake_all()

    def participant(self) -> Participant:
        """What others see of our process. A forked child is another one."""
        pid = os.getpid()
        participant = self._participants.get(pid)
        if participant is None:
            participant = self._participants.setdefault(pid, Participant(self._segment))
        return participant

    def claim(
        self,
        got: list[int],
        function: LockedStep,
        participant: Participant,
        word: int,
        timeout: float | None,
    ) -> int:
        """Wait until `function` takes a slot; its number, or why there is none.

        `word` counts what may make one available. The number stands in `got`, too: see `done`.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            seen = self.word(word)
            slot = self.done(got, function, participant, end=end)
            if slot not in (slot_ring.NOTHING, slot_ring.BUSY):
                return slot
            got.clear()
            left = SLICE if end is None else min(SLICE, end - time.monotonic())
            if left <= 0:
                return slot_ring.NOTHING
            left = give_way(left)
            slot_ring.park(self.base + word, seen, int(left * 1e9), self._polls)
            if self.word(word) == seen:
                self._recover(participant, end)

    def done(
        self,
        answers: list[int],
        function: LockedStep,
        participant: Participant,
        *args: int,
        end: float | None = None,
    ) -> int:
        """Run a function that needs the lock, as often as the lock is busy; its result.

        A stopped process may have the lock, so it is waited for until `end`, and `COURTESY`
        seconds at least: then the result is `BUSY`.

        The result stands in the list `answers`, too, before the handler of any signal can run: one
        instruction of Python calls the function and appends. So who is interrupted knows what was
        done, and nothing is done twice or forgotten.
        """
        limit = None if end is None else max(end, time.monotonic() + COURTESY)
        nap = _BUSY
        while True:
            given = (self.base, self.count, participant.token, *args)
            answers.extend(map(function, *zip(given)))
            if answers[-1] != slot_ring.BUSY:
                return answers[-1]
            if limit is not None and time.monotonic() >= limit:
                return slot_ring.BUSY
            self._relieve(participant, nap)
            nap = min(2 * nap, _LONGEST_NAP)

    def _relieve(self, participant: Participant, nap: float) -> None:
        """Take the lock from a holder that is dead; wait a moment for one that lives."""
        holder = self.word(slot_ring.LOCK)
        if participant.knows_dead(holder):
            slot_ring.seize(self.base, self.count, participant.token, holder)
            self.wake_all()
        else:
            time.sleep(nap)

    def _recover(self, participant: Participant, end: float | None) -> None:
        """Free the slots that dead processes held."""
        asked, slot = set(), 0
        while slot < self.count:
            holder, slot = slot_ring.holder(self.base, self.count, slot)
            slot += 1
            if holder not in asked and participant.knows_dead(holder):
                self.done([], slot_ring.reclaim, participant, holder, end=end)
                self.wake_all()
            asked.add(holder)

    def wake(self, word: int) -> None:
        """Wake one of those who sleep on a word."""
        if atomic_words.has_futex():
            slot_ring.wake_one(self.base + word)

    def wake_all(self) -> None:
        """Wake all who sleep."""
        if atomic_words.has_futex():
            slot_ring.wake_everybody(self.base + slot_ring.ITEMS)
            slot_ring.wake_everybody(self.base + slot_ring.SPACE)

"""`Reservation` and `Peek`: a slot in somebody's hands."""

from __future__ import annotations

import os
from types import TracebackType

from shmcompute.errors import LockError, QueueClosedError, QueueEmptyError, QueueFullError
from shmcompute.queues import slot_ring
from shmcompute.queues.slot_table import LockedStep, SlotTable
from shmcompute.typing import Array


class HeldSlot:
    """A slot in somebody's hands, for ``with``."""

    def __init__(self, table: SlotTable, arrays: Array, timeout: float | None) -> None:
        self.got: list[int] = []  # what was answered to our claim: at its end the slot's number
        self.answers: list[int] = []  # and to its giving back
        self.table, self.arrays, self.timeout = table, arrays, timeout
        self.participant = table.participant()

    def _number(self) -> int:
        """The slot that is held; below 0 if none is."""
        over = self.answers and self.answers[-1] != slot_ring.BUSY
        return self.got[-1] if self.got and not over else slot_ring.NOTHING

    def _open(self, function: LockedStep, word: int) -> Array:
        if self._number() >= 0:
            raise LockError("this slot is in use; ask the queue for another one")
        self.got.clear()
        self.answers.clear()
        try:
            number = self.table.claim(self.got, function, self.participant, word, self.timeout)
            if number < 0:
                raise self._refused(number)
            return self.arrays[number, ...]
        except BaseException:
            self._undo()
            raise

    def _refused(self, why: int) -> Exception:
        """Why there is no slot."""
        raise NotImplementedError

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._done()
        else:
            self._undo()

    def _done(self) -> None:
        """Let others have the slot, now that all went well."""
        raise NotImplementedError

    def _undo(self) -> None:
        """Leave the slot as if it had not been asked for."""
        raise NotImplementedError

    def _end(self, function: LockedStep, word: int, *args: int) -> None:
        if (number := self._number()) < 0:
            return
        if self.participant.pid != os.getpid():
            raise LockError(
                f"this slot is held by process {self.participant.pid}, which forked this one, and "
                "is given back there"
            )
        sleep = self.table.done(self.answers, function, self.participant, number, *args)
        if self.table.closed:
            self.table.wake_all()  # those too who wait to hear that nothing more will come
        elif sleep > 0:
            self.table.wake(word)

    def __del__(self) -> None:
        if self._number() >= 0 and self.participant.pid == os.getpid():
            self._undo()


class Reservation(HeldSlot):
    """A slot to be filled; see `ArrayQueue.reserve`."""

    none = False  # whether None is put, in place of what the slot holds

    def __enter__(self) -> Array:
        return self._open(slot_ring.reserve, slot_ring.SPACE)

    def _done(self) -> None:
        self._end(slot_ring.publish, slot_ring.ITEMS, int(self.none))

    def _undo(self) -> None:
        self._end(slot_ring.give_back, slot_ring.SPACE)

    def _refused(self, why: int) -> Exception:
        if why == slot_ring.ENDED:
            return QueueClosedError("the queue is closed: nothing more can be put; make another")
        return QueueFullError(
            f"all {self.table.count} slots are in use, and none became free within "
            f"{self.timeout} s; get some, wait longer, or make a queue of more slots"
        )


class Peek(HeldSlot):
    """A slot to be read; see `ArrayQueue.peek`."""

    def __enter__(self) -> Array | None:
        slot = self._open(slot_ring.take, slot_ring.ITEMS)
        return None if self.table.old(self._number()) % 2 else slot

    def _done(self) -> None:
        self._end(slot_ring.give_back, slot_ring.SPACE)

    def _undo(self) -> None:
        self._end(slot_ring.put_back, slot_ring.ITEMS)

    def _refused(self, why: int) -> Exception:
        if why == slot_ring.ENDED:
            return QueueClosedError("the queue is closed, and all of it has been taken")
        return QueueEmptyError(
            f"nothing was put within {self.timeout} s; wait longer, or have the producers close() "
            "the queue when they are done"
        )

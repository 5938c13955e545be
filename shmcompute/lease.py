"""`Reservation` and `Peek`: a slot in somebody's hands."""

from __future__ import annotations

import os
from types import TracebackType

from shmcompute import slots
from shmcompute.errors import LockError, QueueClosedError, QueueEmptyError, QueueFullError
from shmcompute.storage import Array
from shmcompute.turnstile import Step, Turnstile


class Lease:
    """A slot in somebody's hands, for ``with``."""

    def __init__(self, turnstile: Turnstile, arrays: Array, timeout: float | None) -> None:
        self.got: list[int] = []  # what was answered to our claim: at its end the slot's number
        self.told: list[int] = []  # and as we gave it back
        self.turnstile, self.arrays, self.timeout = turnstile, arrays, timeout
        self.member = turnstile.member()

    def _number(self) -> int:
        """The slot that is held; below 0 if none is."""
        over = self.told and self.told[-1] != slots.BUSY
        return self.got[-1] if self.got and not over else slots.NOTHING

    def _open(self, function: Step, word: int) -> Array:
        if self._number() >= 0:
            raise LockError("this slot is in use; ask the queue for another one")
        self.got.clear()
        self.told.clear()
        try:
            number = self.turnstile.claim(self.got, function, self.member, word, self.timeout)
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

    def _end(self, function: Step, word: int, *args: int) -> None:
        if (number := self._number()) < 0:
            return
        if self.member.pid != os.getpid():
            raise LockError(
                f"this slot is held by process {self.member.pid}, which forked this one, and is "
                "given back there"
            )
        sleep = self.turnstile.done(self.told, function, self.member, number, *args)
        if self.turnstile.closed:
            self.turnstile.wake_all()  # those too who wait to hear that nothing more will come
        elif sleep > 0:
            self.turnstile.wake(word)

    def __del__(self) -> None:
        if self._number() >= 0 and self.member.pid == os.getpid():
            self._undo()


class Reservation(Lease):
    """A slot to be filled; see `ArrayQueue.reserve`."""

    none = False  # whether None is put, in place of what the slot holds

    def __enter__(self) -> Array:
        return self._open(slots.reserve, slots.SPACE)

    def _done(self) -> None:
        self._end(slots.publish, slots.ITEMS, int(self.none))

    def _undo(self) -> None:
        self._end(slots.give_back, slots.SPACE)

    def _refused(self, why: int) -> Exception:
        if why == slots.ENDED:
            return QueueClosedError("the queue is closed: nothing more can be put; make another")
        return QueueFullError(
            f"all {self.turnstile.count} slots are in use, and none became free within "
            f"{self.timeout} s; get some, wait longer, or make a queue of more slots"
        )


class Peek(Lease):
    """A slot to be read; see `ArrayQueue.peek`."""

    def __enter__(self) -> Array | None:
        slot = self._open(slots.take, slots.ITEMS)
        return None if self.turnstile.old(self._number()) % 2 else slot

    def _done(self) -> None:
        self._end(slots.give_back, slots.SPACE)

    def _undo(self) -> None:
        self._end(slots.put_back, slots.ITEMS)

    def _refused(self, why: int) -> Exception:
        if why == slots.ENDED:
            return QueueClosedError("the queue is closed, and all of it has been taken")
        return QueueEmptyError(
            f"nothing was put within {self.timeout} s; wait longer, or have the producers close() "
            "the queue when they are done"
        )

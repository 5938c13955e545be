"""`Bell`: the caller's side of a control block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from shmcompute.backends.doorbell import control
from shmcompute.backends.doorbell.block import Block
from shmcompute.frame import Frame

# ns that the caller sleeps at most before it looks after its workers: a death wakes nobody, yet
# each look takes a core from a worker for a moment.
SLICE = 20_000_000


class Bell:
    """Rings for the workers of a block and waits for their answers.

    Who rings holds a lock: there is one run at a time, and outside of one all slots have answered.
    """

    def __init__(self, block: Block, turns: int) -> None:
        self._block = block
        self._spin = turns
        self._slots = block.slot(0)
        self.own = block.slot(block.workers)

    def bound(
        self, number: int, count: int, *, own: bool, frame: Frame | None, step: int
    ) -> Callable[[], bool]:
        """A run in one go: ring `count` workers, do the own share if it has a frame, wait a moment.

        Returns
        -------
        callable
            Runs, and tells whether all is done, and well; else see `finished`, `failed` and the own
            seat.
        """
        slot, address = self.own if own else 0, 0 if frame is None else frame.address
        where = (self._block.address, self._slots, number, count, slot, address, step, self._spin)
        return partial(control.run, *where)

    def ring(self, number: int, count: int, *, own: bool, step: int) -> None:
        """Ring `count` workers for a plan, and assign the own share."""
        slot = self.own if own else 0
        control.ring(self._block.address, self._slots, number, count, slot, step)

    def note(self, number: int) -> None:
        """Tell one worker to look elsewhere: a message is on its way."""
        control.ring_one(self._block.slot(number), control.NOTE)

    def pending(self) -> int:
        """How many workers have not answered the last ring; the dead among them, too."""
        return self._block.read(self._block.address + control.PENDING) & control.LOW

    def crowded(self) -> bool:
        """Whether workers were found on the caller's own core, again and again; said once."""
        crowd = self._block.address + control.CROWDED
        crowded = self._block.read(crowd) >= control.CROWD
        if crowded:
            self._block.write(crowd, 0)
        return crowded

    def finished(self) -> bool:
        """Sleep until all have answered, for a moment at most; whether they have."""
        return bool(control.finished(self._block.address, 0, SLICE))

    def stop(self) -> None:
        """Have all take no more chunks."""
        self._block.write(self._block.address + control.STOP, 1)

    def owes(self, number: int) -> bool:
        """Whether a worker has not answered the last ring."""
        slot = self._block.slot(number)
        read = self._block.read
        return read(slot + control.ASKED) != read(slot + control.ANSWERED)

    def late(self, number: int) -> bool:
        """Whether a worker has not begun what it was rung for."""
        slot, read = self._block.slot(number), self._block.read
        begun = read(slot + control.CURRENT) != control.NONE or read(slot + control.DONE)
        return self.owes(number) and not begun

    def failed(self, number: int) -> bool:
        """Whether a worker's kernel raised, and what it raised has not been taken yet."""
        return self._block.read(self._block.slot(number) + control.STATUS) != control.FINE

    def taken(self, number: int) -> None:
        """It has been taken."""
        self._block.write(self._block.slot(number) + control.STATUS, control.FINE)

    def offer(self, number: int, first: int) -> None:
        """Let a worker begin the task of that number, which no task had before, and the next."""
        self._block.write(self._block.slot(number) + control.CLAIMED, first)

    def recall(self, number: int) -> int:
        """Let it begin no more; the task after the last that it has begun."""
        return int(control.recall(self._block.slot(number)))

    def compilations(self) -> int:
        """How often workers had to compile a kernel, where machine code was to spare them that."""
        slots = map(self._block.slot, range(self._block.workers))
        return sum(self._block.read(slot + control.COMPILED) for slot in slots)

    def reset(self, number: int) -> None:
        """Make a slot ready for another worker; the one that had it is dead."""
        slot, block = self._block.slot(number), self._block
        block.write(slot + control.ANSWERED, block.read(slot + control.ASKED))
        block.write(slot + control.SLEEPS, 0)
        block.write(slot + control.STATUS, control.FINE)

    def undone(self, chunks: int, numbers: Iterable[int], step: int) -> set[int]:
        """Chunks of a run that is over which are not known to be done.

        `numbers` are those of the slots that took part.
        """
        read = self._block.read
        slots = [self._block.slot(number) for number in numbers]
        if step:
            return {
                chunk
                for slot in slots
                for chunk in range(
                    read(slot + control.FIRST) + step * read(slot + control.DONE), chunks, step
                )
            }
        writing = {read(slot + control.CURRENT) for slot in slots}
        if control.TAKING in writing:  # killed just there: which one it took is not known
            return set(range(chunks))
        taken = min(chunks, read(self._block.address + control.CURSOR))
        return {chunk for chunk in writing if 0 <= chunk < chunks} | set(range(taken, chunks))

"""`DoorbellCaller`: the caller's side of a control block."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from shmcompute.backends.doorbell import control_block as control
from shmcompute.backends.doorbell.mapping import ControlMapping
from shmcompute.typing import Array

# ns that the caller sleeps at most before it looks after its workers: a death wakes nobody, yet
# each look takes a core from a worker for a moment.
SLICE_NS = 20_000_000


class DoorbellCaller:
    """Rings for the workers of a control block and waits for their answers.

    Who rings holds a lock: there is one run at a time, and outside of one all slots have answered.

    Parameters
    ----------
    mapping : ControlMapping
    spin : int
        Iterations that the caller spins before it sleeps.
    bases : int
        The address of a table: where the segments are that frames number.

    Attributes
    ----------
    silent : callable
        Whether all workers have answered, and all that kernels raised was received.
    run : callable
        ``run(plan, count, own, native, step)``: ring `count` workers, do the share of the
        slot `own` (or 0: none) by the machine code at `native`, wait a moment. Whether all is done,
        and well; else see `finished`, `failed` and the own slot.
    run_alone, run_with_gil : callable
        ``run_alone(native)``: the same by the caller's own slot alone, for a block without workers.
    finished : callable
        Sleep until all have answered, for a moment at most; whether they have.
    settle : callable
        Wait until all have answered, without an instruction of Python at which the handler of a
        signal could run, and raise. Only for threads, which do not die.
    own : int
        The caller's own slot.
    record : callable
        ``record(run)``: have chunks recorded under this number from the next ring on; 0: not.
    """

    room = control.RECORDS  # how many chunks may be recorded before records are taken,
    left = -1  # and how many still

    def __init__(self, mapping: ControlMapping, spin: int, bases: int) -> None:
        self._mapping = mapping
        self._words = mapping.words
        self._slots = mapping.slot(0)
        self.own = mapping.slot(mapping.workers)
        # Bound here, and not methods: a repeated call has nothing else to do.
        self.silent: Callable[[], bool] = partial(control.silent, self._slots, mapping.workers)
        self.run: Callable[..., bool] = partial(
            control.run, mapping.address, self._slots, bases, spin
        )
        alone = mapping.address, bases, self.own
        self.run_alone: Callable[[int], bool] = partial(control.run_alone, *alone)
        self.run_with_gil: Callable[[int], bool] = partial(control.run_with_gil, *alone)
        self.record = mapping.writer(mapping.address + control.RUN)
        self._lost = [0] * (mapping.workers + 1)
        self.finished: Callable[[], bool] = partial(control.finished, mapping.address, 0, SLICE_NS)
        self.settle: Callable[[], None] = partial(control.settle, mapping.address)

    def ring(self, number: int, count: int, *, own: bool, step: int) -> None:
        """Ring `count` workers for a plan, and assign the own share."""
        slot = self.own if own else 0
        control.ring(self._mapping.address, self._slots, number, count, slot, step)

    def noter(self, number: int) -> Callable[[], None]:
        """What has one worker read its pipe, where a message is on its way."""
        return partial(control.ring_one, self._mapping.slot(number), control.NOTE)

    def pending(self) -> int:
        """How many workers have not answered the last ring; the dead among them, too."""
        return self._mapping.read(self._mapping.address + control.PENDING) & control.LOW

    def crowded(self) -> bool:
        """Whether workers were found on the caller's own core, again and again; said once."""
        crowded = self._words[control.CROWDED >> 3] >= control.CROWD
        if crowded:
            self._words[control.CROWDED >> 3] = 0
        return crowded

    def stop(self) -> None:
        """Have all take no more chunks."""
        self._mapping.write(self._mapping.address + control.STOP, 1)

    def reporter(self, report: Callable[[int], None], numbers: Iterable[int]) -> Callable[[], None]:
        """What tells how many chunks of this run the slots of these numbers have done."""
        places = [self._mapping.slot(number) + control.DONE for number in numbers]
        return lambda: report(sum(map(self._mapping.read, places)))

    def owes(self, number: int) -> bool:
        """Whether a worker has not answered the last ring."""
        return self._read(number, control.ASKED) != self._read(number, control.ANSWERED)

    def late(self, number: int) -> bool:
        """Whether a worker has not begun what it was rung for."""
        writes = self._read(number, control.CURRENT) != control.NONE
        return self.owes(number) and not (writes or self._read(number, control.DONE))

    def failed(self, number: int) -> bool:
        """Whether a worker's kernel raised, and what it raised was not received yet."""
        return self._read(number, control.STATUS) != control.FINE

    def _read(self, number: int, word: int) -> int:
        """What stands in a word of a worker's slot."""
        return self._words[(control.SLOTS_AT + control.SLOT * number + word) >> 3]

    def received(self, number: int) -> None:
        """What that worker's kernel raised was received."""
        self._mapping.write(self._mapping.slot(number) + control.STATUS, control.FINE)

    def take_records(self) -> list[Array]:
        """What was recorded of each slot since the last time; see `ControlMapping`."""
        return [self._mapping.take_records(number) for number in range(self._mapping.workers + 1)]

    def take_lost(self) -> int:
        """How many records were lost since the last time, for want of room."""
        slots = map(self._mapping.slot, range(self._mapping.workers + 1))
        before, self._lost = self._lost, [self._mapping.read(slot + control.LOST) for slot in slots]
        return sum(self._lost) - sum(before)

    def offer(self, number: int, first: int) -> None:
        """Let a worker begin the task of that number, which no task had before, and the next."""
        self._mapping.write(self._mapping.slot(number) + control.CLAIMED, first)

    def recall(self, number: int) -> int:
        """Let it begin no more; the task after the last that it has begun."""
        return int(control.recall(self._mapping.slot(number)))

    def compilations(self) -> int:
        """How often workers had to compile a kernel, where machine code was to spare them that."""
        slots = map(self._mapping.slot, range(self._mapping.workers))
        return sum(self._mapping.read(slot + control.COMPILED) for slot in slots)

    def reset(self, number: int) -> None:
        """Make a slot ready for another worker; the one that had it is dead."""
        slot, mapping = self._mapping.slot(number), self._mapping
        mapping.write(slot + control.ANSWERED, mapping.read(slot + control.ASKED))
        mapping.write(slot + control.SLEEPS, 0)
        mapping.write(slot + control.STATUS, control.FINE)

    def undone(self, chunks: int, numbers: Iterable[int], step: int) -> set[int]:
        """Chunks of a run that is over which are not known to be done.

        `numbers` are those of the slots that took part.
        """
        read = self._mapping.read
        slots = [self._mapping.slot(number) for number in numbers]
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
        taken = min(chunks, read(self._mapping.address + control.CURSOR))
        return {chunk for chunk in writing if 0 <= chunk < chunks} | set(range(taken, chunks))

"""`Seat`: one worker's place at the bell, or the caller's own."""

from __future__ import annotations

import time

import numpy as np

from shmcompute import cores, trampoline
from shmcompute.arguments import Values
from shmcompute.backends.doorbell import control
from shmcompute.backends.doorbell.block import Block
from shmcompute.frame import Frame
from shmcompute.plan import Plan

# Turns, of some 30 ns. Longer than it takes to wake a sleeper, at either side: else caller and
# worker, each asleep when the other is ready, would go on waking each other call after call.
SPIN = 10_000


def spin(team: int) -> int:
    """How long to wait by spinning, where so many run at the same time.

    Who spins takes a core, so there must be one for each.
    """
    return SPIN if team <= cores.granted() else 0


def unveiled(error: BaseException) -> BaseException:
    """What was raised, where CPython finds that machine code left an exception standing."""
    veiled = isinstance(error, SystemError) and error.__cause__ is not None
    return error.__cause__ or error if veiled else error


class Table:
    """Frames by the numbers of plans, as machine code looks them up.

    It keeps none alive. Numbers are not used twice, so nobody rings for a plan that is gone.
    """

    def __init__(self) -> None:
        self._words = np.zeros((control.PLANS, 2), np.int64)
        self.address: int = self._words.__array_interface__["data"][0]

    def put(self, number: int, frame: Frame) -> None:
        """Let machine code run a plan."""
        self._words[number % control.PLANS] = number, frame.address

    def drop(self, number: int) -> None:
        """Its frame is gone."""
        if number in self:
            self._words[number % control.PLANS] = 0, 0

    def __contains__(self, number: int) -> bool:
        return bool(self._words[number % control.PLANS, 0] == number)


class Seat:
    """Waits for rings and does what falls to its slot.

    Machine code answers alone the rings for plans whose frames are in the table; `wait` returns for
    others.
    """

    def __init__(self, block: Block, number: int, turns: int, table: Table | None = None) -> None:
        self._block = block
        self._spin = turns
        self.number = number
        self.slot = block.slot(number)
        self.table = Table() if table is None else table

    def wait(self) -> int:
        """The number of a plan to be run by Python, or `control.NOTE`.

        Raises
        ------
        Exception
            What a kernel raised in machine code; the ring is not yet answered.
        """
        try:
            code = control.serve(self._block.address, self.slot, self.table.address, self._spin)
        except SystemError as error:
            raise unveiled(error) from None
        if code:
            raise trampoline.raised(code, self._block.read(self.slot + control.FAILURE))
        return self.plan

    def run(self, plan: Plan, values: Values, deadline: float | None = None) -> None:
        """Run by Python what falls to this slot; stop all when the deadline has passed."""
        block, slot = self._block.address, self.slot
        number = control.take(block, slot, control.NONE)
        try:
            while 0 <= number < len(plan.chunks):
                if deadline is not None and time.monotonic() > deadline:
                    self._block.write(block + control.STOP, 1)
                    return
                plan.run_chunk(number, values)
                number = control.take(block, slot, number)
        except BaseException:
            control.fail(block, slot, control.RAISED)
            raise

    def error(self, plan: Plan) -> BaseException | None:
        """What a kernel raised in machine code that the caller ran for this slot."""
        code = self._block.read(self.slot + control.STATUS)
        if code in (control.FINE, control.RAISED):
            return None
        error = trampoline.raised(code, self._block.read(self.slot + control.FAILURE))
        plan.blame(error, self.current)
        return error

    @property
    def current(self) -> int:
        """The chunk that it writes."""
        return self._block.read(self.slot + control.CURRENT)

    @property
    def plan(self) -> int:
        """The number of the plan that was rung for last."""
        return self._block.read(self.slot + control.PLAN)

    def claim(self, number: int) -> bool:
        """Whether this worker may begin the task of that number."""
        return bool(control.claim(self.slot, number))

    def compiled(self, count: int) -> None:
        """Tell how often this process had to compile."""
        self._block.write(self.slot + control.COMPILED, count)

    def answer(self) -> None:
        """Say that this ring is done and this worker writes no more."""
        control.answer(self._block.address, self.slot)

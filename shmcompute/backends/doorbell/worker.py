"""`DoorbellWorker`: a worker's side of a control block, or that of the caller's own share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any, TypeVar

import numpy as np

from shmcompute.backends.doorbell import control_block as control
from shmcompute.backends.doorbell.mapping import ControlMapping
from shmcompute.chunking import Values
from shmcompute.kernels import NativePlan, native_error
from shmcompute.plans import Plan
from shmcompute.system import cores
from shmcompute.typing import Array

T = TypeVar("T")

# Iterations, of some 30 ns. Longer than it takes to wake a sleeper, at either side: else caller and
# worker, each asleep when the other is ready, would go on waking each other call after call.
SPIN = 10_000
SEGMENTS = 1 << 16  # that frames may name at the same time; unused words take no memory


def spin(running: int) -> int:
    """Iterations to spin before one sleeps, where so many run at the same time.

    Who spins takes a core, so there must be one for each.
    """
    return SPIN if running <= cores.granted() else 0


def unveil(error: BaseException) -> BaseException:
    """What was raised, where CPython finds that machine code left an exception standing."""
    veiled = isinstance(error, SystemError) and error.__cause__ is not None
    return error.__cause__ or error if veiled else error


def no_bases() -> Array:
    """A table of where segments are that knows none but all of memory: number 0."""
    return np.zeros(SEGMENTS, np.int64)


class NativePlanTable:
    """Native plans by number, as machine code looks them up.

    It keeps none alive. Numbers are not used twice, so nobody rings for a plan that is gone. Two
    numbers may have one place; then the later plan has it, and the other is run by Python.
    """

    def __init__(self) -> None:
        self._words = np.zeros((control.PLANS, 2), np.int64)
        self.address: int = self._words.__array_interface__["data"][0]

    def put(self, number: int, native: NativePlan) -> None:
        """Let machine code run a plan."""
        self._words[number % control.PLANS] = number, native.address

    def drop(self, number: int) -> None:
        """The plan of that number is gone."""
        if number in self:
            self._words[number % control.PLANS] = 0, 0

    def __contains__(self, number: int) -> bool:
        return bool(self._words[number % control.PLANS, 0] == number)


class DoorbellWorker:
    """Waits for rings and does what falls to its slot.

    Machine code answers alone the rings for plans that are in the table; `wait` returns for others.
    """

    def __init__(
        self,
        mapping: ControlMapping,
        number: int,
        spin: int,
        table: NativePlanTable | None = None,
        bases: Array | None = None,
    ) -> None:
        self._mapping = mapping
        self._spin = spin
        self._slot = mapping.slot(number)
        self.number = number
        self.table = NativePlanTable() if table is None else table
        self.bases = no_bases() if bases is None else bases
        self._bases: int = self.bases.__array_interface__["data"][0]

    def wait(self) -> int:
        """The number of a plan to be run by Python, or `control_block.NOTE`.

        Raises
        ------
        Exception
            What a kernel raised in machine code; the ring is not yet answered.
        """
        try:
            code = control.serve(
                self._mapping.address, self._slot, self.table.address, self._bases, self._spin
            )
        except SystemError as error:
            raise unveil(error) from None
        if code:
            raise native_error(code, self._mapping.read(self._slot + control.FAILURE))
        return self.plan

    def run(
        self,
        plan: Plan,
        values: Values,
        deadline: float | None = None,
        between: Callable[[], None] | None = None,
    ) -> None:
        """Run by Python what falls to this slot; stop all when the deadline has passed.

        `between` is called after each chunk.
        """
        address, slot = self._mapping.address, self._slot
        recorded = self._mapping.read(address + control.RUN)
        number = control.take(address, slot, control.NONE)
        try:
            while 0 <= number < len(plan.chunks):
                if deadline is not None and time.monotonic() > deadline:
                    self._mapping.write(address + control.STOP, 1)
                    return
                if recorded:
                    self.record(recorded, number, plan.run_chunk, number, values, self.number)
                else:
                    plan.run_chunk(number, values, self.number)
                number = control.take(address, slot, number)
                if between is not None:
                    between()
        except BaseException:
            control.fail(address, slot, control.RAISED)
            raise

    def record(self, run: int, number: int, work: Callable[..., T], *args: Any) -> T:
        """Do some work, and record when: a chunk of a run, or a task."""
        control.begin(self._mapping.address, self._slot, run, number)
        try:
            return work(*args)
        finally:
            control.end(self._mapping.address, self._slot)

    def note(self, number: int, began: int) -> None:
        """Record what has taken the time of this run since then, if it is recorded."""
        run = self._mapping.read(self._mapping.address + control.RUN)
        if run:
            control.note(self._mapping.address, self._slot, run, number, began)

    def frame(self, size: int) -> bytes:
        """Where the arrays of this run are, so many bytes."""
        return self._mapping.read_frame(size)

    def values(self, types: tuple[type[Any], ...]) -> Values:
        """The numbers of this run."""
        return self._mapping.read_values(types)

    def error(self, plan: Plan) -> BaseException | None:
        """What a kernel raised in machine code that the caller ran for this slot."""
        code = self._mapping.read(self._slot + control.STATUS)
        if code in (control.FINE, control.RAISED):
            return None
        error = native_error(code, self._mapping.read(self._slot + control.FAILURE))
        plan.blame(error, self.current)
        return error

    @property
    def current(self) -> int:
        """The chunk that it writes."""
        return self._mapping.read(self._slot + control.CURRENT)

    @property
    def plan(self) -> int:
        """The number of the plan that was rung for last."""
        return self._mapping.read(self._slot + control.PLAN)

    def claim(self, number: int) -> bool:
        """Whether this worker may begin the task of that number."""
        return bool(control.claim(self._slot, number))

    def note_compilations(self, count: int) -> None:
        """Tell the caller how often this process had to compile."""
        self._mapping.write(self._slot + control.COMPILED, count)

    def answer(self) -> None:
        """Say that this ring is done and this worker writes no more."""
        control.answer(self._mapping.address, self._slot)


@dataclass(frozen=True)
class DoorbellHandle:
    """A worker's side of a control block, as it travels to a process that is being started."""

    fd: int  # of the control block
    workers: int
    number: int
    spin: int

    def __reduce__(self) -> tuple[Any, ...]:
        # Under spawn and forkserver a descriptor goes with what starts the process. (Without that,
        # multiprocessing would open a listening socket for it.)
        if get_spawning_popen() is None:
            raise TypeError("a doorbell's handle travels only to a process that is being started")
        return _received, (reduction.DupFd(self.fd), self.workers, self.number, self.spin)

    def attach(self) -> DoorbellWorker:
        """Map the control block, in the worker."""
        return DoorbellWorker(ControlMapping(self.workers, self.fd), self.number, self.spin)


def _received(duplicate: Any, workers: int, number: int, spin: int) -> DoorbellHandle:
    return DoorbellHandle(duplicate.detach(), workers, number, spin)

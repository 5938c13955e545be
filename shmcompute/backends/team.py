"""Threads of this process that wait at a doorbell, and the caller, who takes a share.

Jitted kernels run in machine code from the bell to the answer, without the GIL. Where there is no
doorbell, `threads.py` does the same with the standard library's executor.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from concurrent.futures import Future
from typing import Any

from shmcompute import cores
from shmcompute.arguments import Values
from shmcompute.backends.base import Backend, deadline_of, overrun, raise_first
from shmcompute.backends.doorbell import NOTE, Bell, Block, Seat, Table, prepare, spin, unveiled
from shmcompute.backends.serial import Serial
from shmcompute.backends.tasks import TaskThreads
from shmcompute.call import Function
from shmcompute.holding import holding
from shmcompute.plan import Plan

PATIENCE = 1.0  # seconds that threads have to end when the program does


class _Call:
    """What the threads run just now, where machine code does not know it."""

    plan: Plan | None = None
    values: Values = ()
    errors: tuple[BaseException, ...] = ()


class Team(Backend):
    """The calling thread and ``workers - 1`` more.

    A call that comes while another one runs is run by its own thread alone. A timeout is looked at
    between chunks: a thread can't be stopped.
    """

    threaded = True

    def __init__(self, workers: int, *, pin: bool = False) -> None:
        self.workers = workers
        self._tasks = TaskThreads(workers)
        self._pin = pin
        self._lock = threading.Lock()
        self._call = _Call()
        self._table = Table()
        self._threads: dict[int, threading.Thread] = {}  # by number, each from its own start on
        block, turns = Block(workers - 1, fd=-1), spin(workers)
        self._block = block
        self._bell = Bell(block, turns)
        self._seats = [Seat(block, number, turns, self._table) for number in range(workers)]
        self._finalizer = weakref.finalize(self, _dismiss, self._bell, self._threads, os.getpid())
        self._finalizer.atexit = False  # the pool's own end comes first

    def run(self, plan: Plan, values: Values, timeout: float | None) -> None:
        count = min(self.workers, len(plan.chunks)) - 1
        if count >= 1 and not self._lock.locked():
            with self._lock:
                if self._finalizer.alive:  # it was not closed meanwhile
                    self._run(plan, values, timeout, count)
                    return
        Serial().run(plan, values, timeout)

    def ready(self, timeout: float | None = None) -> None:
        with self._lock:
            if self._finalizer.alive:
                self._start()

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        return self._tasks.submit(function, args, keywords)

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        self._tasks.shutdown(wait=wait, cancel_futures=cancel_futures)
        self.close(wait=wait)

    def close(self, *, wait: bool = True) -> None:
        patience = math.inf if wait else PATIENCE
        holding(self._lock, patience, lambda taken: self._finalizer() if taken else None)

    def _start(self) -> None:
        prepare()
        for number in set(range(self.workers - 1)) - self._threads.keys():
            # An interrupt may come between its start and any note of it; so it takes its place
            # itself, and if it was started twice, the second one finds it taken.
            threading.Thread(
                target=_help,
                args=(self._seats[number], self._call, self._threads, self._pin),
                name=f"shmcompute-{number}",
                daemon=True,
            ).start()

    def _run(self, plan: Plan, values: Values, timeout: float | None, count: int) -> None:
        self._set_up(plan, values, count)
        call, step = self._call, count + 1 if plan.static else 0
        try:
            if self._rung(plan, values, count, step, deadline_of(timeout)):
                return
        except SystemError as error:
            self._bell.stop()
            raise unveiled(error) from None
        except BaseException:
            self._bell.stop()
            raise
        finally:
            try:
                self._quiesce()
            finally:
                errors, call.plan, call.values, call.errors = call.errors, None, (), ()
        if self._bell.crowded():
            cores.leave_mine(thread.native_id or 0 for thread in list(self._threads.values()))
        own = self._seats[-1].error(plan)
        raised = list(errors) if own is None else [own]
        del own, errors
        raise_first(raised)
        undone = self._bell.undone(len(plan.chunks), [*range(count), self.workers - 1], step)
        if undone:
            raise overrun(plan, timeout, list(undone))

    def _set_up(self, plan: Plan, values: Values, count: int) -> None:
        """Have all in its place that the threads will look at."""
        if len(self._threads) < count:
            self._start()
        if self._bell.pending():  # several interrupts have cut short the end of a call
            self._quiesce()
        if plan.frame is not None and plan.number not in self._table:
            self._table.put(plan.number, plan.frame)
        if values:
            self._block.tell(values)
        self._call.plan, self._call.values = plan, values

    def _rung(
        self, plan: Plan, values: Values, count: int, step: int, deadline: float | None
    ) -> bool:
        """Ring, do the own share and wait; True if all is done, well, and without Python."""
        if deadline is None and plan.frame is not None:
            run = self._bell.bound(plan.number, count, own=True, frame=plan.frame, step=step)
            if run():
                return True
        else:
            self._bell.ring(plan.number, count, own=True, step=step)
            self._seats[-1].run(plan, values, deadline)
        self._await(deadline)
        return False

    def _await(self, deadline: float | None) -> None:
        late = [thread for number, thread in list(self._threads.items()) if self._bell.late(number)]
        for thread in late[:1]:
            cores.bring(thread.native_id or 0)
        while not self._bell.finished():
            if deadline is not None and time.monotonic() > deadline:
                self._bell.stop()

    def _quiesce(self) -> None:
        """Return when no thread writes any more; an interrupt has to wait for that."""
        interrupt = None
        while self._bell.pending():
            try:
                self._bell.finished()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt


def _help(seat: Seat, call: _Call, threads: dict[int, threading.Thread], pin: bool) -> None:
    """What a thread does: answer rings until dismissed."""
    me = threading.current_thread()
    if threads.setdefault(seat.number, me) is not me:
        return
    if pin:
        cores.pin(threading.get_native_id(), seat.number + 1)  # the first is left to the caller
    while _answered(seat, call):
        pass


def _answered(seat: Seat, call: _Call) -> bool:
    """Answer a ring; False if it was to dismiss. Nothing of the call stays in this thread."""
    try:
        if seat.wait() == NOTE:
            seat.answer()
            return False
    except BaseException as error:  # noqa: BLE001  # the caller's to raise
        _keep(error, seat, call)
        return True
    try:
        if call.plan is not None:
            seat.run(call.plan, call.values)
    except BaseException as error:  # noqa: BLE001
        call.errors += (error,)
    seat.answer()
    return True


def _keep(error: BaseException, seat: Seat, call: _Call) -> None:
    """What a kernel raised in machine code, for the caller to raise."""
    if call.plan is not None:
        call.plan.blame(error, seat.current)
    call.errors += (error,)
    seat.answer()


def _dismiss(bell: Bell, threads: dict[int, threading.Thread], pid: int) -> None:
    """End the threads."""
    if os.getpid() != pid:
        return
    for number in list(threads):
        bell.note(number)
    for thread in list(threads.values()):
        thread.join(PATIENCE)
    threads.clear()

"""`Threads`: threads of this process that wait at a doorbell, and the caller, who takes a share.

Jitted kernels run in machine code from the ring to the answer, without the GIL.

The file is long because it is one class: all of its methods hold, or leave, the same lock.
"""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from functools import partial
from types import FrameType
from typing import Any

from shmcompute.backends.base import (
    TIMED,
    Backend,
    Prospect,
    Report,
    Terms,
    overrun,
    raise_first,
)
from shmcompute.backends.doorbell import (
    NOTE,
    ControlMapping,
    DoorbellCaller,
    DoorbellWorker,
    NativePlanTable,
    no_bases,
    prepare,
    spin,
    unveil,
)
from shmcompute.backends.serial import Serial
from shmcompute.chunking import Values, place_in_memory
from shmcompute.plans import Plan
from shmcompute.system import cores, recording
from shmcompute.system.interrupts import call_with_lock, deadline_of, holds, in_call
from shmcompute.system.recording import Recorder
from shmcompute.system.records import Lane, Lanes
from shmcompute.system.unpatched import threading
from shmcompute.tasks import Function, Initializer, TaskThreads

END = 1.0  # seconds that threads have to end when the program does


class _Current:
    """What the threads run just now, for those that run it from Python."""

    plan: Plan | None = None
    values: Values = ()
    context: Context | None = None  # the caller's variables, for Python
    errors: tuple[BaseException, ...] = ()


class Threads(Backend):
    """The calling thread and ``workers - 1`` more.

    A call that comes while another one runs is run by its own thread alone. A timeout is looked at
    between chunks: a thread can't be stopped.
    """

    threaded = True

    def __init__(
        self, workers: int, *, pin: bool = False, initializer: Initializer | None = None
    ) -> None:
        self.workers = workers
        self._initializer = initializer
        # Of their own: a task may wait for a plan.
        self._tasks = TaskThreads(workers, "shmcompute-task")
        self._pin = pin
        self._lock = threading.Lock()
        self._current = _Current()
        self._table = NativePlanTable()
        self._bases = no_bases()
        self._threads: dict[int, threading.Thread] = {}  # by number, each from its own start on
        self._mapping, iterations = ControlMapping(workers - 1, fd=-1), spin(workers)
        self._caller = DoorbellCaller(self._mapping, iterations, self._bases.ctypes.data)
        self._doorbells = [
            DoorbellWorker(self._mapping, number, iterations, self._table, self._bases)
            for number in range(workers)
        ]
        self._name = recording.name_pool("threads", workers)
        self._lanes: dict[int, Lane] = {}  # of the threads, by number
        self._finalizer = weakref.finalize(
            self, _end_threads, self._caller, self._threads, os.getpid()
        )
        self._finalizer.atexit = False  # the pool's own end comes first

    def run(
        self, plan: Plan, values: Values, timeout: float | None, report: Report | None = None
    ) -> None:
        if self._initializer is not None and plan.native is None:
            self._initializer()
        count = _helpers(self.workers, plan)
        if count >= 1 and not self._lock.locked():
            recorder = recording.recorder
            with self._lock:
                if self._finalizer.alive:  # it was not closed meanwhile
                    if recorder is None:
                        self._run(plan, values, timeout, count, report)
                    else:
                        self._record(recorder, plan, values, timeout, count, report)
                    return
        Serial().run(plan, values, timeout, report)

    def within_call(self) -> bool:
        return self._waits_for_itself()

    @classmethod
    def prospect(cls, plan: Plan, terms: Terms) -> Prospect:
        if _helpers(terms.workers, plan) < 1:
            return Serial.prospect(plan, terms)
        return Prospect(
            plan.reasons, own=TIMED if terms.timed and plan.native is not None else None
        )

    def ready(self, timeout: float | None = None) -> None:
        if self._initializer is not None:
            self._initializer()
        if not self._waits_for_itself():
            call_with_lock(self._lock, math.inf, lambda _: self._start())

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        task = recording.submitted(function.name, self._name)
        work = function if task is None else partial(task.run, function)
        run = copy_context().run
        if self._initializer is not None:
            return self._tasks.submit(_initialized, self._initializer, run, work, args, keywords)
        return self._tasks.submit(run, work, args, keywords)

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        self._tasks.shutdown(wait=wait, cancel_futures=cancel_futures)
        self.close(wait=wait)

    def close(self, *, wait: bool = True) -> None:
        timeout = math.inf if wait else END
        if self._waits_for_itself():
            return  # at the end of the call that is the last to refer to this
        call_with_lock(self._lock, timeout, lambda locked: self._finalizer() if locked else None)

    def _waits_for_itself(self) -> bool:
        """Whether who waited for the lock would wait for itself: see `in_call`."""
        return self._lock.locked() and in_call(self._holds)

    def _holds(self, frame: FrameType) -> bool:
        """Whether the call of that frame holds the lock, or is about to take or release it."""
        if frame.f_code is Threads.run.__code__:
            return frame.f_locals["self"] is self
        return holds(frame, self._lock)

    def _start(self) -> None:
        if not self._finalizer.alive:
            return
        prepare()
        for number in set(range(self.workers - 1)) - self._threads.keys():
            # An interrupt may come between its start and any note of it; so it takes its place
            # itself, and if it was started twice, the second one finds it taken.
            threading.Thread(
                target=_serve,
                args=(
                    self._doorbells[number],
                    self._current,
                    self._threads,
                    self._lanes,
                    self._pin,
                    self._initializer,
                ),
                name=f"shmcompute-{number}",
                daemon=True,
            ).start()

    def _record(
        self,
        recorder: Recorder,
        plan: Plan,
        values: Values,
        timeout: float | None,
        count: int,
        report: Report | None,
    ) -> None:
        """`_run` it, and leave a record of it."""
        workers = Lanes(self._name, (*range(count), self.workers - 1), self._lanes)
        run = recorder.begin_run(plan, recorder.job(plan, workers), self._caller)
        try:
            self._run(plan, values, timeout, count, report)
        except BaseException as error:
            recorder.end_run(run, self._caller, error)
            raise
        recorder.end_run(run, self._caller)

    def _run(
        self,
        plan: Plan,
        values: Values,
        timeout: float | None,
        count: int,
        report: Report | None,
    ) -> None:
        self._set_up(plan, values, count)
        current, step = self._current, count + 1 if plan.static else 0
        deadline = None if timeout is None else deadline_of(timeout)
        between = (
            None
            if report is None
            else self._caller.reporter(report, [*range(count), self.workers - 1])
        )
        try:
            if self._ring(plan, values, count, step, deadline, between):
                return
        except BaseException as error:
            self._quiesce()
            if isinstance(error, SystemError):
                raise unveil(error) from None
            raise
        finally:
            try:
                self._caller.settle()  # whatever handlers of signals have raised again meanwhile
            finally:
                errors, current.plan, current.values, current.errors = current.errors, None, (), ()
                current.context = None
        if self._caller.crowded():
            cores.evict_from_my_core(
                thread.native_id or 0 for thread in list(self._threads.values())
            )
        own = self._doorbells[-1].error(plan)
        raised = list(errors) if own is None else [own]
        del own, errors
        raise_first(raised)
        undone = self._caller.undone(len(plan.chunks), [*range(count), self.workers - 1], step)
        if undone:
            raise overrun(plan, timeout, list(undone))

    def _set_up(self, plan: Plan, values: Values, count: int) -> None:
        """Put what the threads will read in its place."""
        if len(self._threads) < count:
            self._start()
        if plan.native is not None and plan.form.number not in self._table:
            self._table.put(plan.form.number, plan.native)
        if (frame := plan.frame(place_in_memory)) is not self._mapping.frame:
            self._mapping.write_frame(frame)
        if values:
            self._mapping.write_values(values)
        self._current.plan, self._current.values = plan, values
        self._current.context = None if plan.native is not None else copy_context()

    def _ring(
        self,
        plan: Plan,
        values: Values,
        count: int,
        step: int,
        deadline: float | None,
        between: Callable[[], None] | None,
    ) -> bool:
        """Ring, do the own share and wait; True if all is done, well, and without Python."""
        if deadline is None and between is None and plan.native is not None:
            caller, native = self._caller, plan.native.address
            if caller.run(plan.form.number, count, caller.own, native, step):
                return True
        else:
            self._caller.ring(plan.form.number, count, own=True, step=step)
            self._doorbells[-1].run(plan, values, deadline, between)
        self._await(deadline, between)
        return False

    def _await(self, deadline: float | None, between: Callable[[], None] | None) -> None:
        late = [
            thread for number, thread in list(self._threads.items()) if self._caller.late(number)
        ]
        for thread in late[:1]:
            cores.migrate_to_my_core(thread.native_id or 0)
        while not self._caller.finished():
            if between is not None:
                between()
            recording.take(self._caller)  # while there is time, and room
            if deadline is not None and time.monotonic() > deadline:
                self._caller.stop()

    def _quiesce(self) -> None:
        """Have threads end the chunks that they write. Handlers of signals run meanwhile."""
        self._caller.stop()
        while self._caller.pending():
            self._caller.finished()


def _initialized(initializer: Initializer, run: Callable[..., Any], *call: Any) -> Any:
    """Make a call in a thread that has called the initializer."""
    initializer()
    return run(*call)


def _helpers(workers: int, plan: Plan) -> int:
    """How many threads run a plan beside the caller."""
    return min(workers, plan.count) - 1


def _serve(
    doorbell: DoorbellWorker,
    current: _Current,
    threads: dict[int, threading.Thread],
    lanes: dict[int, Lane],
    pin: bool,
    initializer: Initializer | None,
) -> None:
    """What a thread does: answer rings until it is to end."""
    thread = threading.current_thread()
    if threads.setdefault(doorbell.number, thread) is not thread:
        return
    lanes[doorbell.number] = Lane(
        os.getpid(), threading.get_native_id(), f"worker {doorbell.number}"
    )
    if pin:
        cores.pin(threading.get_native_id(), doorbell.number + 1)  # the first is left to the caller
    while _answered(doorbell, current, initializer):
        pass


def _answered(doorbell: DoorbellWorker, current: _Current, initializer: Initializer | None) -> bool:
    """Answer a ring; False if it was to end. Nothing of the call stays in this thread."""
    try:
        if doorbell.wait() == NOTE:
            doorbell.answer()
            return False
    except BaseException as error:  # noqa: BLE001  # the caller's to raise
        _keep_error(error, doorbell, current)
        return True
    try:
        if initializer is not None and current.context is not None:
            initializer()
        if current.plan is not None and current.context is not None:
            # A copy of its own: no two threads may be in one.
            current.context.copy().run(doorbell.run, current.plan, current.values)
        elif current.plan is not None:
            doorbell.run(current.plan, current.values)
    except BaseException as error:  # noqa: BLE001
        current.errors += (error,)
    doorbell.answer()
    return True


def _keep_error(error: BaseException, doorbell: DoorbellWorker, current: _Current) -> None:
    """What a kernel raised in machine code, for the caller to raise."""
    if current.plan is not None:
        current.plan.blame(error, doorbell.current)
    current.errors += (error,)
    doorbell.answer()


def _end_threads(caller: DoorbellCaller, threads: dict[int, threading.Thread], pid: int) -> None:
    """End the threads."""
    if os.getpid() != pid:
        return
    for number in list(threads):
        caller.noter(number)()
    for thread in list(threads.values()):
        thread.join(END)
    threads.clear()

"""`Processes`: runs plans and tasks on worker processes.

The file is long because it is one class: who holds the pool's lock when must be read together.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import util
from types import FrameType
from typing import Any

from shmcompute import events
from shmcompute.backends.base import Backend, Prospect, Report, Terms
from shmcompute.backends.processes.doorbell_run import DoorbellRun
from shmcompute.backends.processes.fair_lock import FairLock
from shmcompute.backends.processes.poller import Wakeup
from shmcompute.backends.processes.prospect import prospect
from shmcompute.backends.processes.protocol import pickling
from shmcompute.backends.processes.retry import run_with_retries
from shmcompute.backends.processes.start import start_in_background, usable
from shmcompute.backends.processes.task_queue import TaskQueue
from shmcompute.backends.processes.worker_group import WorkerGroup
from shmcompute.backends.processes.worker_process import (
    LEAVE,
    PackedInitializer,
    kill_unwanted,
)
from shmcompute.backends.serial import Serial
from shmcompute.chunking import Values
from shmcompute.errors import ClosedError, KernelTimeoutError, ShmComputeError, WorkerLostError
from shmcompute.plans import Plan
from shmcompute.system import recording
from shmcompute.system.call_context import call_context
from shmcompute.system.interrupts import Latch, call_with_lock, deadline_of, holds, in_call
from shmcompute.system.records import Span
from shmcompute.tasks import Function, Initializer, WorkItem


class Processes(Backend):
    """Persistent worker processes.

    Invariant: outside `_lock` every worker that lives is silent; it has answered all it was asked.
    """

    shared = True

    def __init__(
        self,
        workers: int,
        start_method: str,
        *,
        threads: int,
        caller_runs: bool = False,
        pin: bool = False,
        initializer: Initializer | None = None,
        max_tasks: int | None = None,
    ) -> None:
        self.workers = workers
        self.start_method = usable(start_method)
        if self.start_method != start_method:
            events.tell("method_fallback", asked=start_method, used=self.start_method)
        self.caller_runs = caller_runs
        self._pid, self._closed = os.getpid(), False
        self._initializer = initializer if caller_runs else None  # what the caller calls, too
        # False where several interrupts may have cut short the end of a call: see `_serve`.
        self._silent = True
        # Those that may be repeated, by the number of the plan's form and of its chunks.
        self._runs: dict[tuple[int, int], DoorbellRun] = {}
        self._group = WorkerGroup(
            multiprocessing.get_context(self.start_method),
            workers,
            caller_runs=caller_runs,
            threads=threads,
            pin=pin,
            flush=weakref.WeakMethod(self._flush_if_idle),
            initializer=None if initializer is None else _pack(initializer),
            max_tasks=max_tasks,
        )
        wakeup = Wakeup()
        self._fair_lock = FairLock(wakeup)
        self._lock = self._fair_lock.lock
        self._tasks = TaskQueue(self._group, self._fair_lock, wakeup)
        self._finalizer = weakref.finalize(self, _end, self._group, self._pid)
        self._finalizer.atexit = False  # the pool's own end comes first
        self._begun = Latch()  # open when the first workers were started, or could not be
        if util.is_exiting():  # calls run serially
            self._begun.open()
        elif self.start_method == "fork":  # which is quick, and best left to the calling thread
            self._group.fill()
            self._begun.open()
        else:
            start_in_background(weakref.WeakMethod(self._begin), self._begun)

    def _begin(self) -> None:
        """Have workers started; what fails here, the first call meets again."""
        with suppress(ShmComputeError, OSError):
            # Who closes the pool waits for the lock.
            staff = partial(self._group.staff, give_up=lambda: self._closed)
            self._enter(None, staff)

    def run(
        self, plan: Plan, values: Values, timeout: float | None, report: Report | None = None
    ) -> None:
        if not plan.jitted:
            plan = plan.within(call_context())
        if self._initializer is not None and plan.native is None:
            self._initializer()
        if timeout is None and report is None and self._repeat(plan, values):
            return
        if self.within_call() or util.is_exiting():  # at the end there are no workers
            Serial().run(plan, values, timeout, report)
            return
        deadline = None if timeout is None else deadline_of(timeout)

        def run_once(part: Plan, first: bool = True) -> None:
            # What has killed a worker is not for the caller to try.
            own = self.caller_runs and first
            rest = None if report is None else _after(report, len(plan.chunks) - len(part.chunks))
            self._run_once(part, values, timeout, deadline, rest, own=own)

        if plan.retries:
            work = partial(run_with_retries, plan, self.workers, run_once)
        else:
            work = partial(run_once, plan)
        self._enter(timeout, work)

    @classmethod
    def prospect(cls, plan: Plan, terms: Terms) -> Prospect:
        return prospect(plan, terms)

    def _run_once(
        self,
        plan: Plan,
        values: Values,
        timeout: float | None,
        deadline: float | None,
        report: Report | None,
        *,
        own: bool,
    ) -> None:
        """Run every chunk once; `own`: the caller takes a share."""
        group, count = self._group, plan.count - own
        with _unreached(plan):
            number, workers = group.hold(plan, count, deadline)
        run = DoorbellRun(
            plan,
            number,
            group,
            workers,
            own=own,
            timeout=timeout,
            deadline=deadline,
            report=report,
        )
        if timeout is None and report is None and plan.journal is None:
            self._keep(plan, run)
        if (recorder := recording.recorder) is None:
            run.complete(plan, values)
        else:
            run.record(recorder, plan, values)

    def _keep(self, plan: Plan, run: DoorbellRun) -> None:
        """Keep a run for `_repeat`, as long as its plan lives."""
        key = plan.form.number, plan.count
        if key not in self._runs:
            weakref.finalize(plan.form, self._runs.pop, key, None).atexit = False
        self._runs[key] = run

    def _repeat(self, plan: Plan, values: Values) -> bool:
        """Run a plan that was run before by workers that still hold it; False if there is none.

        What `run` does, without looking for what a repeated call does not need.
        """
        run, group = self._runs.get((plan.form.number, plan.count)), self._group
        if run is None or self._lock.locked() or self._fair_lock.dispatcher_waits is not None:
            return False
        with self._lock:
            try:
                if not (self._silent and group.holds(run.generation)):
                    return False
                if group.registry.ended or self._closed:
                    return False
                segments = plan.places(group.registry.segments.place).segments
                if not (run.current and run.reaches(segments)):
                    return False
                self._silent = False
                recorder = recording.recorder
                if recorder is None:
                    run.complete(plan, values)
                else:
                    run.record(recorder, plan, values)
                self._silent = True
            except BaseException as error:
                group.silence()
                self._explain(error)
                raise
        if group.registry.ended:
            self._flush_if_idle()
        return True

    def within_call(self) -> bool:
        # In the thread of tasks callbacks of futures run.
        return self._tasks.thread is threading.current_thread() or self._waits_for_itself()

    def admit(self, plan: Plan) -> None:
        self._group.registry.packed(plan)  # which may fail

    def ready(self, timeout: float | None = None) -> None:
        if self._initializer is not None:
            self._initializer()
        deadline = None if timeout is None else deadline_of(timeout)

        def awaited() -> None:
            self._group.staff(deadline)
            self._group.await_ready(self._group.workers, deadline)

        self._enter(timeout, awaited)

    @property
    def pids(self) -> list[int]:
        self._check()
        self._begun.wait()
        return [worker.process.pid for worker in list(self._group.workers)]

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        # The caller is the only worker, or the dispatcher would wait for the caller.
        waits = self._waits_for_itself() or self._tasks.waits_for_itself()
        if waits or self._fair_lock.waits_for_itself() or not self._group.size:
            return Serial(self._initializer).submit(function, args, keywords)
        task = recording.submitted(function.name, self._group.name)
        item = WorkItem(function, args, keywords, call_context(), task)
        self._tasks.put(item, self)
        return item.future

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        self._closed = True
        if wait and self._waits_for_itself():
            wait = False
            if self._finalizer.alive:
                kill_unwanted(self._group.workers)
        self._tasks.close(self, wait=wait, cancel=cancel_futures)

    def end_workers(self, signal: int) -> None:
        self._closed = True
        self._group.end(signal)
        self._tasks.end(self)

    def close(self, *, wait: bool = True) -> None:
        self._closed = True
        call_with_lock(self._lock, math.inf if wait else LEAVE, self._leave)

    def _leave(self, locked: bool) -> None:
        if locked:
            self._finalizer()
        else:
            # A call that does not end, in a thread that exit does not wait for: what it uses is
            # its own to close.
            kill_unwanted(self._group.workers)

    def _waits_for_itself(self) -> bool:
        """Whether who waited for the lock would wait for itself: see `in_call`."""
        if not self._lock.locked() or self._fair_lock.dispatching:
            return False
        return in_call(self._holds)

    def _holds(self, frame: FrameType) -> bool:
        """Whether the call of that frame holds the lock, or is about to take or release it."""
        if frame.f_code is Processes._repeat.__code__:
            return frame.f_locals["self"] is self
        return holds(frame, self._lock)

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this pool is closed; make another one")

    def _enter(self, timeout: float | None, work: Callable[[], None]) -> None:
        """Hold the lock for what a call asks of the workers."""
        waited: Span | None = None

        def serve(locked: bool) -> None:
            if waited is not None:
                waited.end()
            if not locked:
                busy = f"the pool was busy with other calls for {timeout} s; nothing has run"
                raise KernelTimeoutError(busy)
            try:
                self._check()
                self._group.silence()
                self._silent = True
                work()
            except WorkerLostError as error:
                self._explain(error)
                raise
            finally:
                self._group.silence()

        def serve_if_locked(locked: bool) -> bool:
            if locked:
                serve(locked)
            return locked

        if self._waits_for_itself():
            raise RuntimeError(
                "this thread is within a call of this pool, and would wait for itself"
            )
        free = self._fair_lock.dispatcher_waits is None
        if not (free and call_with_lock(self._lock, 0, serve_if_locked)):
            waited = recording.begin("wait", "for the pool")
            self._fair_lock.call(math.inf if timeout is None else timeout, serve)
        # What ended while the lock was held relied on its holder.
        if self._group.registry.ended:
            self._flush_if_idle()

    def _explain(self, error: BaseException) -> None:
        """Say why a worker was killed, if this very call has closed the pool."""
        if self._closed and isinstance(error, WorkerLostError):
            error.add_note("the pool was closed within this call, perhaps by a handler of a signal")

    def compilations(self) -> int:
        """How often workers had to compile a kernel."""
        return self._group.caller.compilations()

    def _flush_if_idle(self) -> None:
        # Called from close() of an array, or within garbage collection in any thread, perhaps one
        # that holds the lock: then who holds it will flush.
        if os.getpid() != self._pid or self._closed:
            return

        def flush(locked: bool) -> None:
            if locked:
                try:
                    self._group.forget_ended(None)
                finally:
                    self._group.silence()

        self._fair_lock.call(0, flush)


def _after(report: Report, before: int) -> Report:
    """Tells of what is left of a plan, where so many chunks were done before."""
    return lambda done: report(before + done)


def _pack(initializer: Initializer) -> PackedInitializer:
    function, args = initializer.function, initializer.args
    return PackedInitializer(function.name, pickling.pack_task(function, args, {}, call_context()))


@contextmanager
def _unreached(plan: Plan) -> Iterator[None]:
    """Nothing runs yet: of a call that overruns here no chunk was reached."""
    try:
        yield
    except KernelTimeoutError as error:
        error.chunks = list(plan.chunks)
        raise


def _end(group: WorkerGroup, pid: int) -> None:
    if os.getpid() == pid:
        group.close()

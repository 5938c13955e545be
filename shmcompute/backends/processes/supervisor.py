"""`Processes`: runs plans and tasks on worker processes."""

from __future__ import annotations

import math
import multiprocessing
import os
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from shmcompute.arguments import Values
from shmcompute.backends import doorbell
from shmcompute.backends.base import Backend, deadline_of
from shmcompute.backends.processes.channel import Forget, Load
from shmcompute.backends.processes.crew import Crew
from shmcompute.backends.processes.desk import Desk
from shmcompute.backends.processes.hall import Hall
from shmcompute.backends.processes.launch import usable
from shmcompute.backends.processes.library import Library
from shmcompute.backends.processes.member import LEAVE, Member, kill_all
from shmcompute.backends.processes.ring import Ring
from shmcompute.backends.processes.run import Run
from shmcompute.backends.processes.starting import start
from shmcompute.backends.processes.turn import Turn
from shmcompute.backends.processes.wake import Wake
from shmcompute.backends.serial import Serial
from shmcompute.call import Call, Function
from shmcompute.errors import ClosedError, KernelTimeoutError, ShmComputeError, WorkerLostError
from shmcompute.gate import Gate
from shmcompute.holding import holding
from shmcompute.journal import Journal, size_of
from shmcompute.plan import Plan

PATIENCE = 5.0  # seconds that close() of an array waits for idle workers


class Processes(Backend):
    """Persistent worker processes.

    Invariant: outside `_lock` every live member is silent; it has answered all it was sent.
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
    ) -> None:
        self.workers = workers
        self.start_method = usable(start_method)
        self._caller_runs = caller_runs
        self._pid = os.getpid()
        self._closed = False
        # False where several interrupts may have cut short the end of a call: see `_entered`.
        self._silent = True
        self._hall = None
        if doorbell.wanted():
            with suppress(OSError):  # no descriptor to be had, or forbidden: a pipe will do
                self._hall = Hall(workers, caller_runs=caller_runs)
        dropped = _nothing if self._hall is None else self._hall.forget
        self._library = Library(dropped, weakref.WeakMethod(self._flush_if_idle))
        context = multiprocessing.get_context(self.start_method)
        first = int(caller_runs) if pin else None
        self._crew = Crew(context, workers - caller_runs, threads, self._hall, first)
        wake = Wake()
        self._turn = Turn(wake)
        self._lock = self._turn.lock
        self._desk = Desk(self._crew, self._library, self._turn, wake)
        self._finalizer = weakref.finalize(self, _end, self._crew.members, self._pid, self._hall)
        self._finalizer.atexit = False  # the pool's own end comes first
        self._begun = Gate()  # open when the first workers were started, or could not be
        if self.start_method == "fork":  # which is quick, and best left to the calling thread
            self._crew.staff()
            self._begun.open()
        else:
            start(weakref.WeakMethod(self._begin), self._begun, rings=self._hall is not None)

    def _begin(self) -> None:
        """Have workers started; what fails here, the first call meets again."""
        with suppress(ShmComputeError, OSError):
            self._entered(None, self._crew.staff)

    def run(self, plan: Plan, values: Values, timeout: float | None) -> None:
        if timeout is None and self._again(plan, values):
            return
        if self._desk.here:  # a future's callback: who has the workers can't wait for them
            Serial().run(plan, values, timeout)
            return
        deadline = deadline_of(timeout)
        work = self._insist if plan.retries else partial(self._once, own=self._caller_runs)
        self._entered(timeout, partial(work, plan, values, timeout, deadline))

    def _once(
        self,
        plan: Plan,
        values: Values,
        timeout: float | None,
        deadline: float | None,
        *,
        own: bool,
    ) -> None:
        """Run every chunk once; `own`: the caller takes a share."""
        with _unreached(plan):
            self._flush(deadline)
            self._crew.staff()
            members = self._crew.members[: len(plan.chunks) - own]
            self._crew.await_ready(members, deadline)
            number = self._load(plan, members, deadline)
        if self._hall is None or not members:
            run = Run(plan, values, number, members, timeout, deadline)
            run.complete(caller_runs=own)
            return
        ring = self._hall.ring(plan, number, members, timeout, deadline, own=own)
        self._hall.tell(values)
        ring.complete(plan, values)

    def _insist(
        self, plan: Plan, values: Values, timeout: float | None, deadline: float | None
    ) -> None:
        """Run every chunk, and again, from what it held before, each whose worker died."""
        size = max(size_of(plan.written(number)) for number in range(len(plan.chunks)))
        left = plan
        for attempt in range(plan.retries + 1):
            journal = Journal.made(len(left.chunks), self.workers, size)
            trial = replace(left, journal=journal, kept={}, number=0)
            try:
                # What has killed a worker is not for the caller to try.
                own = self._caller_runs and not attempt
                self._once(trial, values, timeout, deadline, own=own)
                return
            except BaseException as error:
                undone = journal.undone()
                for number in undone:
                    journal.restore(number, trial.written(number))
                if not isinstance(error, WorkerLostError) or attempt == plan.retries:
                    error.add_note("chunks that are not done read as before the call (retries)")
                    raise
                if not undone:  # it died after its last chunk was done
                    return
                left = replace(left, chunks=tuple(left.chunks[number] for number in undone))

    def _again(self, plan: Plan, values: Values) -> bool:
        """Run a plan that was run before by workers that still hold it; False if there is none.

        What `run` does, without looking for what a repeated call does not need.
        """
        ring: Ring | None = plan.kept.get("ring")
        hall = self._hall
        if ring is None or hall is None or self._lock.locked() or self._turn.gate is not None:
            return False
        with self._lock:
            try:
                if not (self._silent and hall.holds(ring)):
                    return False
                if self._library.outdated() or self._closed:
                    return False
                self._silent = False
                if values:
                    hall.tell(values)
                ring.complete(plan, values)
                self._silent = True
            except BaseException:
                self._crew.silence()
                raise
        if self._library.outdated():
            self._flush_if_idle()
        return True

    def ready(self, timeout: float | None = None) -> None:
        deadline = deadline_of(timeout)

        def awaited() -> None:
            self._crew.staff()
            self._crew.await_ready(self._crew.members, deadline)

        self._entered(timeout, awaited)

    @property
    def pids(self) -> list[int]:
        self._check()
        self._begun.wait()
        return [member.process.pid for member in list(self._crew.members)]

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        if not self._crew.size:  # the caller is the only worker
            return Serial().submit(function, args, keywords)
        call = Call(function, args, keywords)
        self._desk.put(call, self)
        return call.future

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        self._closed = True
        self._desk.close(self, wait=wait, cancel=cancel_futures)

    def close(self, *, wait: bool = True) -> None:
        self._closed = True
        holding(self._lock, math.inf if wait else LEAVE, self._leave)

    def _leave(self, taken: bool) -> None:
        if not taken:
            # A call that does not end, in a thread that exit does not wait for: what it uses is
            # its own to close.
            kill_all(self._crew.members)
            return
        self._finalizer()
        self._crew.members.clear()

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this pool is closed; make another one")

    def _entered(self, timeout: float | None, work: Callable[[], None]) -> None:
        """Hold the lock for what a call asks of the workers."""

        def entered(taken: bool) -> None:
            if not taken:
                raise KernelTimeoutError(
                    f"the pool was busy with other calls for {timeout} s; nothing has run"
                )
            self._check()
            self._crew.silence()
            self._silent = True
            work()

        self._locked(math.inf if timeout is None else timeout, entered)
        # What ended while the lock was held relied on its holder.
        if self._library.outdated():
            self._flush_if_idle()

    def _locked(self, patience: float, work: Callable[[bool], None]) -> None:
        """Call `work(taken)` with the lock, if it comes within `patience` seconds, or without."""

        def locked(taken: bool) -> None:
            try:
                work(taken)
            finally:
                if taken:
                    self._crew.silence()

        self._turn.of_call(patience, locked)

    def compilations(self) -> int:
        """How often workers had to compile a kernel."""
        return 0 if self._hall is None else self._hall.bell.compilations()

    def _load(self, plan: Plan, members: Sequence[Member], deadline: float | None) -> int:
        """Have these members hold the plan; under which number."""
        packed = self._library.packed(plan)
        number = self._library.number(packed)
        self._library.watch(packed.handles)
        lacking = [member for member in members if number not in member.plans]
        path = tuple(sys.path)

        def message(member: Member) -> Load:
            return Load(number, packed, self._library.stale(member.plans), path)

        def loaded(member: Member) -> None:
            member.plans.difference_update(self._library.stale(member.plans))
            member.plans.add(number)

        self._crew.ask(lacking, message, loaded, deadline)
        return number

    def _flush_if_idle(self) -> None:
        # Called from close() of an array, or within garbage collection in any thread, perhaps one
        # that holds the lock: then who holds it will flush.
        if os.getpid() != self._pid or self._closed:
            return
        self._locked(0, lambda taken: self._flush(None) if taken else None)

    def _flush(self, deadline: float | None) -> None:
        """Have workers unmap what has ended; on return its memory is back.

        They have nothing else to do: who does not answer is stopped, or as good as dead.
        """
        ended = self._library.give_up()
        if not ended:
            return
        ready = [member for member in self._crew.members if member.ready and member.alive]

        def message(member: Member) -> Forget:
            return Forget(ended, self._library.stale(member.plans))

        def forgotten(member: Member) -> None:
            member.plans.difference_update(self._library.stale(member.plans))

        with suppress(ShmComputeError):  # a worker that is gone has forgotten too
            last = time.monotonic() + PATIENCE
            until = last if deadline is None else min(deadline, last)
            self._crew.ask(ready, message, forgotten, until)
        self._crew.silence()


@contextmanager
def _unreached(plan: Plan) -> Iterator[None]:
    """Nothing runs yet: of a call that overruns here no chunk was reached."""
    try:
        yield
    except KernelTimeoutError as error:
        error.chunks = list(plan.chunks)
        raise


def _nothing() -> None:
    """Who has no doorbell has no rings to forget."""


def _end(members: list[Member], pid: int, hall: Hall | None) -> None:
    if os.getpid() != pid:
        return
    for member in members:
        member.leave()
    for member in members:
        member.close()
    if hall is not None:
        hall.close()

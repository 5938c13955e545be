"""`Processes`: starts workers, hands them plans, replaces the dead."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

from shmcompute import cores
from shmcompute.arguments import Values
from shmcompute.backends import doorbell
from shmcompute.backends.base import Backend, deadline_of, raise_first, seconds_to
from shmcompute.backends.processes.channel import Forget, Load, Loaded, Lost, Ready
from shmcompute.backends.processes.hall import Hall
from shmcompute.backends.processes.library import Library
from shmcompute.backends.processes.member import LEAVE, Member, kill_all, usable
from shmcompute.backends.processes.packing import unpack_error
from shmcompute.backends.processes.ring import Ring
from shmcompute.backends.processes.run import Run
from shmcompute.errors import (
    ClosedError,
    KernelSerializationError,
    KernelTimeoutError,
    ShmComputeError,
    WorkerLostError,
)
from shmcompute.journal import Journal, size_of
from shmcompute.plan import Plan

PATIENCE = 5.0  # seconds that a fork waits for workers to be started, and close() for the idle

_starting: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


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
        self._context = multiprocessing.get_context(self.start_method)
        self._threads = threads
        self._caller_runs = caller_runs
        self._pin = pin
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        # False where several interrupts may have cut short the end of a call: see `_entered`.
        self._silent = True
        self._members: list[Member] = []  # by number
        self._hall = None
        if doorbell.wanted():
            with suppress(OSError):  # no descriptor to be had, or forbidden: a pipe will do
                self._hall = Hall(workers, caller_runs=caller_runs)
        self._library = Library(_nothing if self._hall is None else self._hall.forget)
        self._finalizer = weakref.finalize(self, _end, self._members, self._pid, self._hall)
        self._finalizer.atexit = False  # the pool's own end comes first
        self._begun = threading.Event()  # set when the first workers were started, or could not be
        if self.start_method == "fork":  # which is quick, and best left to the calling thread
            self._staff()
            self._begun.set()
        else:
            _start(self, self._begun)

    def run(self, plan: Plan, values: Values, timeout: float | None) -> None:
        if timeout is None and self._again(plan, values):
            return
        deadline = deadline_of(timeout)
        with self._entered(timeout):
            if plan.retries:
                self._insist(plan, values, timeout, deadline)
            else:
                self._once(plan, values, timeout, deadline, own=self._caller_runs)

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
            self._staff()
            members = self._members[: len(plan.chunks) - own]
            self._await_ready(members, deadline)
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
        if ring is None or hall is None or self._lock.locked():
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
                self._silence()
                raise
        if self._library.outdated():
            self._flush_if_idle()
        return True

    def ready(self, timeout: float | None = None) -> None:
        deadline = deadline_of(timeout)
        with self._entered(timeout):
            self._staff()
            self._await_ready(self._members, deadline)

    @property
    def pids(self) -> list[int]:
        self._check()
        self._begun.wait()
        return [member.process.pid for member in list(self._members)]

    def close(self, *, wait: bool = True) -> None:
        self._closed = True
        if not self._lock.acquire(timeout=-1 if wait else LEAVE):
            # A call that does not end, in a thread that exit does not wait for: what it uses is
            # its own to close.
            kill_all(self._members)
            return
        try:
            self._finalizer()
            self._members.clear()
        finally:
            self._lock.release()

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this pool is closed; make another one")

    @contextmanager
    def _entered(self, timeout: float | None) -> Iterator[None]:
        """Hold the lock for what a call asks of the workers."""
        with self._locked(-1 if timeout is None else timeout) as taken:
            if not taken:
                raise KernelTimeoutError(
                    f"the pool was busy with other calls for {timeout} s; nothing has run"
                )
            self._check()
            self._silence()
            self._silent = True
            yield
        # What ended while the lock was held relied on its holder.
        if self._library.outdated():
            self._flush_if_idle()

    @contextmanager
    def _locked(self, patience: float) -> Iterator[bool]:
        """Hold the lock, if it comes within `patience` seconds (-1: whenever); whether it did."""
        taken: list[bool] = []
        try:
            # One step for the interpreter: whenever an interrupt comes, `taken` tells the truth.
            taken.extend(map(self._lock.acquire, (True,), (patience,)))
            yield taken[0]
        finally:
            if taken and taken[0]:
                try:
                    self._silence()
                finally:
                    self._lock.release()

    def _silence(self) -> None:
        """End members that owe an answer: the call was interrupted before it came."""
        kill_all([member for member in self._members if member.owes])

    def _staff(self) -> None:
        """Replace workers that died and start those that are missing."""
        self._check()
        before = list(self._members)
        try:
            self._replace()
        finally:  # also if one could not be started: who is gone must not be rung for
            if self._hall is not None and before != self._members:
                self._hall.watch(self._members)

    def _replace(self) -> None:
        for member in [member for member in self._members if not member.alive]:
            self._members.remove(member)
            member.close()
        here = {member.number for member in self._members}
        for number in sorted(set(range(self.workers - self._caller_runs)) - here):
            seat = () if self._hall is None else self._hall.seat(number)
            member = Member(self._context, number, self._threads, *seat)
            self._members.insert(number, member)
            if self._pin:
                with suppress(OSError):  # it died, which is noticed where it is needed
                    cores.pin(member.process.pid, number + self._caller_runs)

    def compilations(self) -> int:
        """How often workers had to compile a kernel."""
        return 0 if self._hall is None else self._hall.bell.compilations()

    def _await_ready(self, members: Sequence[Member], deadline: float | None) -> None:
        for member in members:
            if member.ready:
                continue
            if not member.wait(seconds_to(deadline)):
                kill_all([member for member in members if member.stopped])  # it would never start
                raise KernelTimeoutError(
                    "workers were not ready in time; nothing has run, and they go on starting"
                )
            member.ready = isinstance(self._answer(member, "started"), Ready)

    def _answer(self, member: Member, doing: str) -> object:
        """The answer that a member owes. Its death is an error of the call."""
        try:
            member.wait()
            return member.answer()
        except Lost:
            how = member.ended()
            raise WorkerLostError(
                f"worker {member.process.pid} was lost ({how}) while it {doing}; nothing has run. "
                "The next call starts another one",
                member.process.exitcode,
            ) from None

    def _load(self, plan: Plan, members: Sequence[Member], deadline: float | None) -> int:
        """Have these members hold the plan; under which number."""
        packed = self._library.packed(plan)
        number = self._library.number(packed)
        self._library.watch(packed, self._flush_if_idle)
        lacking = [member for member in members if number not in member.plans]
        path = tuple(sys.path)

        def message(member: Member) -> Load:
            return Load(number, packed, self._library.stale(member.plans), path)

        def loaded(member: Member) -> None:
            member.plans.difference_update(self._library.stale(member.plans))
            member.plans.add(number)

        self._ask(lacking, message, loaded, deadline)
        return number

    def _ask(
        self,
        members: Sequence[Member],
        message: Callable[[Member], object],
        done: Callable[[Member], None],
        deadline: float | None,
    ) -> None:
        """Send each a message, wait for all their answers, then raise the first failure.

        Who has not answered by the deadline goes on owing: see `_silence`.
        """
        errors: list[BaseException] = []
        for member in members:
            with suppress(Lost):  # noticed below
                member.ask(message(member))
        for member in members:
            try:
                if not member.wait(seconds_to(deadline)):
                    raise KernelTimeoutError(
                        f"worker {member.process.pid} did not answer in time; nothing has run"
                    )
                answer = self._answer(member, "took a plan")
            except (KernelTimeoutError, WorkerLostError) as error:
                errors.append(error)
                continue
            if isinstance(answer, Loaded) and answer.failure is not None:
                errors.append(_refused(unpack_error(answer.failure)))
            else:
                done(member)
        raise_first(errors)

    def _flush_if_idle(self) -> None:
        # Called from close() of an array, or within garbage collection in any thread, perhaps one
        # that holds the lock: then who holds it will flush.
        if os.getpid() != self._pid or self._closed:
            return
        with self._locked(0) as taken:
            if taken:
                self._flush(None)

    def _flush(self, deadline: float | None) -> None:
        """Have workers unmap what has ended; on return its memory is back.

        They have nothing else to do: who does not answer is stopped, or as good as dead.
        """
        ended = self._library.give_up()
        if not ended:
            return
        ready = [member for member in self._members if member.ready and member.alive]

        def message(member: Member) -> Forget:
            return Forget(ended, self._library.stale(member.plans))

        def forgotten(member: Member) -> None:
            member.plans.difference_update(self._library.stale(member.plans))

        with suppress(ShmComputeError):  # a worker that is gone has forgotten too
            last = time.monotonic() + PATIENCE
            self._ask(ready, message, forgotten, last if deadline is None else min(deadline, last))
        self._silence()


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


def _refused(error: BaseException) -> BaseException:
    """What a worker said when a plan did not unpack there, as an error of the call."""
    if isinstance(error, ShmComputeError):
        return error
    wrapped = KernelSerializationError(
        f"a worker can't unpack this call: {type(error).__name__}: {error}. What the kernel "
        "imports must be importable there too; nothing has run"
    )
    wrapped.__cause__ = error.__cause__
    return wrapped


def _start(processes: Processes, begun: threading.Event) -> None:
    """Start the workers while the program goes on; what fails here, the first call meets again."""
    alive = weakref.ref(processes)

    def start() -> None:
        try:
            found = alive()
            if found is not None:
                with suppress(ShmComputeError, OSError), found._entered(None):
                    found._staff()
                begun.set()
            ringing = found is not None and found._hall is not None
            del found
            if ringing:
                doorbell.prepare()
        finally:
            begun.set()

    thread = threading.Thread(target=start, name="shmcompute-start", daemon=True)
    _starting.add(thread)
    try:
        thread.start()
    except RuntimeError:  # no thread to be had: the first call starts them
        begun.set()


def _let_start() -> None:
    """Before a fork: what a starting thread has locked would stay locked in the child."""
    for thread in list(_starting):
        if thread is not threading.current_thread() and thread.is_alive():
            thread.join(PATIENCE)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_let_start)


def _end(members: list[Member], pid: int, hall: Hall | None) -> None:
    if os.getpid() != pid:
        return
    for member in members:
        member.leave()
    for member in members:
        member.close()
    if hall is not None:
        hall.close()

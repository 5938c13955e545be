"""`WorkerGroup`: the worker processes of a pool, the doorbell they wait at, the plans they hold.

Deaths between calls are noticed here (`WorkerGroup.holds`), those in a run by `doorbell_run`. The
file is long because it is one class: what workers hold, and when they are replaced, is one state.
"""

from __future__ import annotations

import math
import signal
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.context import BaseContext

from shmcompute import events
from shmcompute.backends.base import raise_first
from shmcompute.backends.doorbell import (
    ControlMapping,
    DoorbellCaller,
    DoorbellHandle,
    DoorbellWorker,
    prepared,
    spin,
)
from shmcompute.backends.processes import start
from shmcompute.backends.processes.plan_registry import PlanRegistry
from shmcompute.backends.processes.protocol import Lost, exception_pickling, messages
from shmcompute.backends.processes.worker_process import (
    PackedInitializer,
    WorkerProcess,
    close_all,
    kill_unwanted,
)
from shmcompute.errors import (
    ClosedError,
    KernelSerializationError,
    KernelTimeoutError,
    ShmComputeError,
    WorkerInitError,
    WorkerLostError,
)
from shmcompute.plans import Plan
from shmcompute.system import cores, interrupts, recording, reloads
from shmcompute.system.surroundings import surroundings
from shmcompute.system.unpatched import select

# Seconds for which workers that were seen alive count as alive. Who dies within them is found a
# moment later, as if it had died in the run.
TRUST = 1e-4
GRACE = 0.5  # seconds for which an interrupt waits for a start
FORGET = 5.0  # seconds that idle workers have to let go of closed arrays


class WorkerGroup:
    """Starts workers, replaces those that died, has them hold plans.

    Who calls its methods holds the pool's lock. Invariant: outside of that lock each worker that
    lives is silent; it has answered all it was asked, and writes nothing.

    Parameters
    ----------
    workers : int
        How many chunks run at the same time, the caller's included if it takes a share.
    threads : int
        How many each worker may use.
    pin : bool
        Whether each is bound to a core of its own.
    flush : WeakMethod
        Called at the end of a segment that workers may have mapped.
    initializer : PackedInitializer, optional
        What each worker calls before it is ready.
    max_tasks : int, optional
        How many tasks each may do, before another one takes its place.

    Attributes
    ----------
    size : int
        How many worker processes there are to be.
    name : str
        What traces call the pool.
    workers : list of WorkerProcess
        Those that there are, by number.
    own : DoorbellWorker or None
        The caller's own share.
    deaths : select.poll
        Tells by one call whether any worker has ended.
    """

    def __init__(
        self,
        context: BaseContext,
        workers: int,
        *,
        caller_runs: bool,
        threads: int,
        pin: bool,
        flush: weakref.WeakMethod[Callable[[], None]],
        initializer: PackedInitializer | None = None,
        max_tasks: int | None = None,
    ) -> None:
        self.size = workers - caller_runs
        self.name = recording.name_pool("processes", workers)
        self.workers: list[WorkerProcess] = []
        self._retired: list[WorkerProcess] = []  # those that have still to end
        self._max_tasks = math.inf if max_tasks is None else max_tasks
        self.registry = PlanRegistry(flush)
        # Who only waits, the caller, must not take a core that a worker needs.
        self._spin = spin(self.size + 1)
        self.mapping = ControlMapping(self.size)
        bases = self.registry.segments.bases
        self.caller = DoorbellCaller(self.mapping, self._spin, bases.ctypes.data)
        self.own = (
            DoorbellWorker(self.mapping, self.size, self._spin, bases=bases)
            if caller_runs
            else None
        )
        self._context = context
        self._threads = threads
        self.initializer = initializer
        self._first_core = int(caller_runs) if pin else None
        self.deaths = select.poll()
        self._seen_alive = 0.0
        self._ended = False
        reloads.watch()

    def staff(
        self, deadline: float | None = None, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Replace workers that died and start those that are missing; see `fill`."""
        if self.deaths.poll(0):
            self.bury()
        self.fill(deadline, give_up)

    def bury(self) -> None:
        """Let go of those that died; an error if they could not be initialized."""
        refusals: list[BaseException] = []
        for worker in [worker for worker in self.workers if not worker.alive]:
            if (refused := worker.refusal()) is not None:
                refusals.append(refused)
            self.drop(worker)
        raise_first(refusals)

    def tasks_left(self, worker: WorkerProcess) -> float:
        """How many tasks it may still do."""
        return self._max_tasks - worker.tasks

    def retire(self, worker: WorkerProcess) -> None:
        """Let go of one that attends and has done all its tasks, without waiting for its end."""
        worker.expected = True
        worker.tell("worker_retired", tasks=worker.tasks)
        with suppress(Lost):
            worker.pipe.send(messages.Exit())
        self._retired.append(worker)
        self.workers.remove(worker)
        self._watch()
        self._reap()

    def _reap(self) -> None:
        ended = [worker for worker in self._retired if not worker.alive]
        self._retired = [worker for worker in self._retired if worker not in ended]
        close_all(ended)

    def give_up_start(self) -> None:
        """Let go of those that are not ready: one of them could not be initialized."""
        starting = [worker for worker in self.workers if not worker.ready]
        kill_unwanted([worker for worker in starting if not worker.expected])
        for worker in starting:
            self.drop(worker)

    def fill(
        self, deadline: float | None = None, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Start those that are missing. The dead stay, for who has still to hear what they said.

        What starts them may be stopped itself. It is not waited for beyond the deadline, nor long
        after an interrupt, nor when `give_up`, which is asked now and then, says so.
        """
        if len(self.workers) == self.size:
            return
        interrupted: list[float] = []

        def over() -> bool:
            now = time.monotonic()
            late = deadline is not None and now > deadline
            return late or any(now > since + GRACE for since in interrupted) or give_up()

        try:
            # A start that is cut short leaves a child that prints, a fork server that ends, and
            # workers that nobody watches.
            interrupts.call_uninterrupted(
                lambda: self._start_missing(over),
                insists=True,
                interrupted=lambda: interrupted.append(time.monotonic()),
            )
        except start.GivenUpError:
            raise KernelTimeoutError(
                "workers were not started in time: the fork server does not answer; nothing has run"
            ) from None

    def _start_missing(self, give_up: Callable[[], bool]) -> None:
        present = {worker.number for worker in self.workers}
        try:
            for number in sorted(set(range(self.size)) - present):
                self._check()
                self._start(number, give_up)
        finally:  # also if one could not be started
            self._watch()

    def _start(self, number: int, give_up: Callable[[], bool]) -> None:
        handle = DoorbellHandle(self.mapping.fd, self.size, number, self._spin)
        worker = WorkerProcess(
            self._context, number, self._threads, self.caller, handle, give_up, self.initializer
        )
        self.workers.insert(number, worker)
        if self.initializer is not None:
            self.registry.watch(self.initializer.task.handles)
        if self._ended:  # since it began to start
            worker.send_signal(signal.SIGKILL)
        if self._first_core is not None:
            with suppress(OSError):  # it died, which is noticed where it is needed
                cores.pin(worker.process.pid, number + self._first_core)

    def end(self, number: int) -> None:
        """Send all a signal that ends them, from any thread; none is started from now on."""
        self._ended = True
        for worker in [*self.workers, *self._retired]:
            worker.send_signal(number)

    def _check(self) -> None:
        if self._ended:
            raise ClosedError("this pool's workers were ended; make another one")

    def drop(self, worker: WorkerProcess) -> None:
        """One is dead, and must not be rung for."""
        self.workers.remove(worker)
        try:
            close_all([worker])
        finally:
            self._watch()

    def _watch(self) -> None:
        """These are the workers from now on: a new one holds nothing."""
        self.registry.generation += 1
        self._seen_alive = 0.0
        self.deaths = select.poll()
        for worker in self.workers:
            self.deaths.register(worker.end, select.POLLIN)

    def holds(self, generation: int) -> bool:
        """Whether the workers still hold the plans of that generation, and live."""
        if generation != self.registry.generation:
            return False
        now = time.monotonic()
        if now - self._seen_alive < TRUST:
            return True
        if self.deaths.poll(0):
            return False
        self._seen_alive = now
        return True

    def silence(self) -> None:
        """End workers that owe an answer: the call was interrupted before it came."""
        owed = any(worker.pipe.owed for worker in self.workers)
        # One jitted question in place of many, once it is compiled: that must not hold up a start.
        if owed or not (prepared() and self.caller.silent()):
            kill_unwanted([worker for worker in self.workers if worker.owes])

    def await_ready(self, workers: Sequence[WorkerProcess], deadline: float | None) -> None:
        """Return when these have said that they take messages."""
        if all(worker.ready for worker in workers):
            return
        with recording.span("wait", "for workers to start"):
            self._await_ready(workers, deadline)

    def _await_ready(self, workers: Sequence[WorkerProcess], deadline: float | None) -> None:
        for worker in workers:
            if worker.ready:
                continue
            if not worker.wait(interrupts.seconds_to(deadline)):
                # It would never start.
                kill_unwanted([worker for worker in workers if worker.stopped])
                raise KernelTimeoutError(
                    "workers were not ready in time; nothing has run, and they go on starting"
                )
            self.greet(worker, _answer(worker, self.starting, deadline))

    @property
    def starting(self) -> str:
        """What a worker did before it was ready."""
        if self.initializer is None:
            return "started"
        return f"started, or called the initializer {self.initializer.name}"

    def greet(self, worker: WorkerProcess, message: object) -> None:
        """Take a worker's first message; those that start are given up if it could not."""
        try:
            worker.greet(message)
        except WorkerInitError:
            self.give_up_start()
            raise

    def hold(
        self, plan: Plan, count: int, deadline: float | None
    ) -> tuple[int, Sequence[WorkerProcess]]:
        """Have the first `count` workers hold a plan; its number, and they."""
        self.forget_ended(deadline)
        self.staff(deadline)
        workers = self.workers[:count]
        self.await_ready(workers, deadline)
        packed = self.registry.packed(plan)
        segments = self.registry.segments_of(plan)
        number, current = self.registry.number(packed), self.registry.current()
        around = surroundings()

        def load(worker: WorkerProcess) -> messages.Load:
            content = None if number in worker.plans else packed
            lacks = tuple(segments - worker.segments)
            return messages.Load(number, content, lacks, _stale(worker, current), around)

        lacking = [
            worker
            for worker in workers
            if worker.follow(around)
            or number not in worker.plans
            or not segments <= worker.segments
        ]
        loads = list(map(load, lacking))
        recorder = recording.recorder if loads else None
        sending = None if recorder is None else recorder.begin("send", plan.name)
        loaded, errors = self._ask(lacking, loads, deadline)
        if sending is not None:
            sending.end()
        self._tell(plan, packed, loads)
        for worker in loaded:
            worker.plans = (worker.plans & current) | {number}
            worker.segments |= segments
        if errors:
            raise_first(errors)
        return number, workers

    def _tell(
        self, plan: Plan, packed: messages.PackedPlan, loads: Sequence[messages.Load]
    ) -> None:
        workers = sum(load.packed is not None for load in loads)
        if workers:
            events.tell("plan_sent", plan=plan.name, workers=workers, nbytes=packed.nbytes)

    def forget_ended(self, deadline: float | None) -> None:
        """Have workers unmap what has ended; on return its memory is back.

        They have nothing else to do: who does not answer is stopped, or as good as dead.
        """
        ended = self.registry.give_up_ended() if self.registry.ended else None
        if not ended:
            return
        current = self.registry.current()
        ready = [worker for worker in self.workers if worker.ready and worker.alive]
        forgets = [messages.Forget(ended, _stale(worker, current)) for worker in ready]
        last = time.monotonic() + FORGET
        until = last if deadline is None else min(deadline, last)
        forgotten, _ = self._ask(ready, forgets, until)  # who is gone has forgotten too
        for worker in forgotten:
            worker.plans &= current
            worker.segments = {one for one in worker.segments if one.handle not in ended}
        self.silence()

    def _ask(
        self,
        workers: Sequence[WorkerProcess],
        questions: Sequence[object],
        deadline: float | None,
    ) -> tuple[list[WorkerProcess], list[BaseException]]:
        """Send each a message and wait for all their answers.

        Who has not answered by the deadline goes on owing: see `silence`.

        Returns
        -------
        tuple of list
            Those that did it; why others did not.
        """
        for worker in workers:  # first: a long message waits until it is being read
            worker.note()
        for worker, message in zip(workers, questions, strict=True):
            with suppress(Lost):  # noticed below
                worker.pipe.ask(message, deadline)
        done: list[WorkerProcess] = []
        errors: list[BaseException] = []
        for worker in workers:
            try:
                _receive(worker, deadline)
                done.append(worker)
            except ShmComputeError as error:
                errors.append(error)
        return done, errors

    def close(self) -> None:
        """End the workers and give back descriptors."""
        for worker in self.workers:
            worker.leave()
        close_all([*self.workers, *self._retired])
        self.workers.clear()
        self._retired.clear()
        self.mapping.close()


def _stale(worker: WorkerProcess, current: frozenset[int]) -> tuple[int, ...]:
    """Numbers of the plans that a worker holds and nobody will ask for again."""
    return tuple(worker.plans - current)


def _receive(worker: WorkerProcess, deadline: float | None) -> None:
    """Receive the answer to a message; an error if there is none, or it says one."""
    left = interrupts.seconds_to(deadline)
    if not interrupts.wait([worker.pipe.fd, worker.end], left):
        raise KernelTimeoutError(
            f"worker {worker.process.pid} did not answer in time; nothing has run"
        )
    answer = _answer(worker, "took a plan", deadline)
    if isinstance(answer, messages.Loaded) and answer.failure is not None:
        raise _refused(exception_pickling.unpack_error(answer.failure))


def _answer(worker: WorkerProcess, doing: str, deadline: float | None) -> object:
    """The answer that a worker owes, which is there. Its death is an error of the call."""
    try:
        return worker.pipe.answer(deadline)
    except Lost:
        how = worker.ended()
        raise WorkerLostError(
            f"worker {worker.process.pid} was lost ({how}) while it {doing}; nothing has run. "
            "The next call starts another one",
            worker.process.exitcode,
        ) from None


def _refused(error: BaseException) -> ShmComputeError:
    """What a worker said when a plan did not unpack there, as an error of the call."""
    if isinstance(error, ShmComputeError):
        return error
    wrapped = KernelSerializationError(
        f"a worker can't unpack this call: {type(error).__name__}: {error}. What the kernel "
        "imports must be importable there too; nothing has run"
    )
    wrapped.__cause__ = error.__cause__
    return wrapped

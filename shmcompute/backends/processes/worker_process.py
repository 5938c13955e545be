"""`WorkerProcess`: one worker as its pool sees it, with its pipe and what it holds.

The file is long because a worker's states, from its start to its end, must be read together.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import connection, util
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from shmcompute import events
from shmcompute.backends.doorbell import DoorbellCaller, DoorbellHandle
from shmcompute.backends.processes import fork_server, start
from shmcompute.backends.processes.protocol import Lost, Pipe, exception_pickling, messages
from shmcompute.backends.processes.worker import worker_main
from shmcompute.chunking import NumberedSegment
from shmcompute.errors import WorkerInitError, WorkerLostError
from shmcompute.system import cgroup, interrupts
from shmcompute.system.records import Lane
from shmcompute.system.surroundings import Surroundings
from shmcompute.tasks import refusal

UNKNOWN = 255  # stands in for an exit code that nobody can tell
LEAVE = 1.0  # seconds that a worker has to end by itself
INSIST = 100  # exceptions in spite of which workers are killed

_started: weakref.WeakSet[Any] = weakref.WeakSet()  # processes
_oom_kills = 0  # of this cgroup, when a worker was last found lost


class PackedInitializer(NamedTuple):
    """The initializer of a pool, as it travels."""

    name: str
    task: messages.Task


class WorkerProcess:
    """A worker process of a pool.

    It owes an answer while it works: it is *silent* when it owes none, and then writes nothing.

    Parameters
    ----------
    number : int
        Its place in the pool and at the doorbell.
    threads : int
        How many it may use.
    caller, handle
        The caller's side of the doorbell; the worker's, as it travels.
    give_up : callable
        Asked now and then whether its start is not waited for any longer: see `start.start`.
    initializer : PackedInitializer or None
        What it calls before it is ready.

    Attributes
    ----------
    pipe : Pipe
        Our end of its pipe.
    ready : bool
        Whether it has said that it takes messages.
    tasks : int
        How many it has done.
    plans : set of int
        Numbers of the plans that it holds.
    segments : set of NumberedSegment
        Those that it has mapped for frames to name.
    around : Surroundings or None
        Those that it was last told.
    lane : Lane
        That of its time, in a trace.
    note : callable
        Has it read its pipe, where a message is on its way.
    expected : bool
        Whether its end was brought about here, or was told of already.
    """

    def __init__(
        self,
        context: BaseContext,
        number: int,
        threads: int,
        caller: DoorbellCaller,
        handle: DoorbellHandle,
        give_up: Callable[[], bool],
        initializer: PackedInitializer | None = None,
    ) -> None:
        try:
            ours, theirs = context.Pipe()
        except OSError as error:
            raise _unstarted(context, error) from error
        self.pipe = Pipe(ours, parent=True)
        ours.close()
        self.number = number
        self.ready = self.expected = False
        self.tasks = 0
        self.plans: set[int] = set()
        self.segments: set[NumberedSegment] = set()
        self.around: Surroundings | None = None
        self._caller = caller
        self._initializer = initializer
        self.note = caller.noter(number)
        self._oom_kills = cgroup.oom_kills() or 0
        try:
            task = initializer and initializer.task
            args = theirs, number, threads, handle, dict(os.environ), task
            self._start(context, args, give_up)
        except BaseException as error:
            self.pipe.close()
            # Of the fork server, or of fork itself.
            if isinstance(error, (EOFError, OSError)):
                raise _unstarted(context, error) from error
            raise
        finally:
            theirs.close()
        # A descriptor to wait for, ready when the process has ended. The sentinel is a pipe under
        # fork and spawn, which a grandchild may hold open.
        self.end = int(self.process.sentinel if self._pidfd is None else self._pidfd)
        self.pipe.end = self.end
        self.lane = Lane(self.process.pid, self.process.pid, f"worker {number}")
        self.tell("worker_started", method=context.get_start_method())

    def _start(
        self, context: BaseContext, args: tuple[Any, ...], give_up: Callable[[], bool]
    ) -> None:
        self.process: Any = context.Process(  # type: ignore[attr-defined]  # typeshed's gap
            target=worker_main, args=args, name=f"shmcompute-{self.number}", daemon=True
        )
        self._caller.reset(self.number)
        start.start(self.process, context, give_up)
        _started.add(self.process)
        self._pidfd = fork_server.pidfd(self.process.pid)

    def tell(self, event: str, **facts: Any) -> None:
        """Say that this has happened to it."""
        events.tell(event, pid=self.process.pid, number=self.number, **facts)

    def greet(self, message: object) -> None:
        """Take the first message, which says that it takes others from now on."""
        if isinstance(message, messages.Failure) and self._initializer is not None:
            self.expected = True
            self.tell("worker_refused", error=message.summary)
            error = exception_pickling.unpack_error(message)
            raise refusal(self._initializer.name, f"worker {self.process.pid}", error)
        self.ready = isinstance(message, messages.Ready)
        self.tell("worker_ready")

    def refusal(self) -> WorkerInitError | None:
        """Why it ended before it was ready, if it could still tell."""
        try:
            if not self.ready and self.pipe.pending():
                self.greet(self.pipe.answer())
        except WorkerInitError as error:
            return error
        except Lost:
            pass
        return None

    def follow(self, around: Surroundings) -> bool:
        """Note that it is being told these; whether it does not know them yet.

        It drops its plans when it loads a module again.
        """
        known, self.around = self.around, around
        if known is not None and known.reloads != around.reloads:
            self.plans.clear()
        return known != around

    @property
    def alive(self) -> bool:
        # Where others reap our children (SIGCHLD ignored) there is never an exit code. Behind a
        # fork server the exit code may come a moment before the end.
        return self.process.exitcode is None and not connection.wait([self.end], 0)

    @property
    def stopped(self) -> bool:
        """Whether a signal has halted it, so that it gets nowhere."""
        import psutil  # noqa: PLC0415  # 10 ms, for what seldom comes

        try:
            return bool(psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)
        except (psutil.Error, OSError):  # it has ended, or there is no /proc
            return False

    @property
    def owes(self) -> bool:
        """Whether it has not answered yet what it was asked."""
        caller = self._caller
        return self.pipe.owed or caller.owes(self.number) or caller.failed(self.number)

    def failure(self, timeout: float | None) -> messages.Failure:
        """Receive the exception that the doorbell has told of; `Lost` if it will not come."""
        # What stayed in the pipe would pass for the answer to the next message.
        deadline = None if timeout is None else interrupts.deadline_of(timeout)
        if not self.wait(timeout):
            raise Lost
        failure: messages.Failure = self.pipe.answer(deadline)
        self._caller.received(self.number)
        return failure

    def wait(self, timeout: float | None = None) -> bool:
        """Whether within `timeout` seconds it has sent something or ended."""
        return bool(interrupts.wait([self.pipe.fd, self.end], timeout))

    def ended(self, *, raised: bool = True) -> str:
        """How the process ended, in words; waits for it, and brings it about if need be.

        `raised`: whether the caller hears of it, by an error.
        """
        connection.wait([self.end], LEAVE)
        kill_all([self])
        if self.process.exitcode is None:  # a fork server tells it a moment later
            self.process.join(LEAVE)
        how = self._how()
        self._tell_lost(how, raised)
        return how

    def _how(self) -> str:
        how = describe_exit(self.process.exitcode)
        if self.process.exitcode == -signal.SIGKILL and self._was_oom():
            how += ", likely out of memory: the OOM killer has struck in its cgroup"
        return how

    def _tell_lost(self, how: str, raised: bool) -> None:
        if not self.expected:
            self.expected = True
            self.tell("worker_lost", how=how, raised=raised)

    def _was_oom(self) -> bool:
        """Whether the cgroup counts more OOM kills than at its start and at the last such look."""
        global _oom_kills
        before = max(self._oom_kills, _oom_kills)
        _oom_kills = max(before, cgroup.oom_kills() or 0)
        return _oom_kills > before

    def send_signal(self, number: int) -> None:
        """From any thread: it may be closed meanwhile."""
        with suppress(ValueError, OSError):  # it is closed, or has ended
            if self.alive:
                self.expected = True
                os.kill(self.process.pid, number)

    def leave(self) -> None:
        """Ask it to end."""
        self.expected = True
        with suppress(Lost, OSError):
            self.note()
            self.pipe.send(messages.Exit(), deadline=0.0)

    def close(self) -> None:
        """Give back its descriptors; it has ended."""
        self.pipe.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self.process.exitcode is None:
            # Somebody else reaped it. multiprocessing has no word for that: it would take the
            # process for running, and keep it and its descriptors, for ever.
            self.process._popen.returncode = UNKNOWN
        if self.expected:
            self.tell("worker_ended", how=describe_exit(self.process.exitcode))
        else:
            self._tell_lost(self._how(), raised=False)
        if not util.is_exiting():  # else multiprocessing may be about to join it, closed or not
            self.process.close()


def close_all(workers: Sequence[WorkerProcess]) -> None:
    """Wait for their ends, or bring these about, all in the time of one; let go of them."""
    until = interrupts.deadline_of(LEAVE)
    for worker in workers:
        connection.wait([worker.end], interrupts.seconds_to(until))
    kill_all(workers)
    until = interrupts.deadline_of(LEAVE)
    for worker in workers:  # until it is reaped too, by us or by the fork server
        worker.process.join(interrupts.seconds_to(until))
        worker.close()


def kill_all(workers: Sequence[WorkerProcess]) -> None:
    """End them at once, whatever they run. What handlers of signals raise waits until they are."""
    raised = None
    for _ in range(INSIST):
        try:
            while left := [worker for worker in workers if worker.alive]:
                for worker in left:  # alive: else its number may be another process's by now
                    worker.process.kill()
                connection.wait([worker.end for worker in left], LEAVE)
            break
        except BaseException as error:  # noqa: BLE001  # it is raised below
            raised = error
    if raised is not None:
        raise raised


def kill_unwanted(workers: Sequence[WorkerProcess]) -> None:
    """End these, whose answers nobody waits for any longer."""
    living = [worker for worker in workers if worker.alive]
    for worker in living:
        worker.expected = True
    kill_all(living)
    for worker in living:
        worker.tell("worker_killed")


def _unstarted(context: BaseContext, error: Exception) -> WorkerLostError:
    return WorkerLostError(
        f"a worker process could not be started with {context.get_start_method()!r}: "
        f"{type(error).__name__}: {error}. Limits on memory, processes or descriptors may be too "
        'tight; fewer workers, another start method or backend="threads" need less'
    )


def describe_exit(exitcode: int | None) -> str:
    """An exit code in words."""
    if exitcode is None:
        return "without an exit code"
    if exitcode < 0:
        try:
            return f"killed by {signal.Signals(-exitcode).name}"
        except ValueError:
            return f"killed by signal {-exitcode}"
    return f"exit code {exitcode}"


def _after_fork() -> None:
    """A child by plain os.fork() would try to join its parent's workers when it exits."""
    getattr(multiprocessing.process, "_children", set()).difference_update(_started)


os.register_at_fork(after_in_child=_after_fork)

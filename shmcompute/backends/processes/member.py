"""One worker as the parent sees it: its process, its channel, and what it has been sent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import connection, util
from multiprocessing.context import BaseContext
from typing import Any

from shmcompute import cores
from shmcompute.backends.doorbell import Bell
from shmcompute.backends.processes import entry, launch
from shmcompute.backends.processes.channel import Channel, Exit, Failure, Lost
from shmcompute.backends.processes.place import Place
from shmcompute.backends.processes.waiting import wait
from shmcompute.errors import WorkerLostError

UNKNOWN = 255  # stands in for an exit code that nobody can tell
SIGKILLED = -9  # the exit code
LEAVE = 1.0  # seconds that a worker has to end by itself

_started: weakref.WeakSet[Any] = weakref.WeakSet()  # processes
_oom_kills = 0  # of this cgroup, when a worker was last found lost


class Member:
    """A worker process of a pool.

    Parameters
    ----------
    number : int
        Its place in the pool, and at the bell if there is one.
    threads : int
        How many it may use.
    bell, place
        The caller's and the worker's side of a doorbell.
    """

    def __init__(
        self,
        context: BaseContext,
        number: int,
        threads: int,
        bell: Bell | None = None,
        place: Place | None = None,
    ) -> None:
        try:
            ours, theirs = context.Pipe()
        except OSError as error:
            raise _unstarted(context, error) from error
        self.channel = Channel(ours, parent=True)
        self.number = number
        self._bell = bell
        self.ready = False
        self._asked = False  # whether it was sent something that it has not answered
        self.plans: set[int] = set()  # numbers of the plans that it holds
        self._oom_kills = cores.oom_kills() or 0
        try:
            self.process: Any = context.Process(  # type: ignore[attr-defined]  # typeshed's gap
                target=entry.main,
                args=(theirs, number, threads, place),
                name=f"shmcompute-{number}",
                daemon=True,
            )
            if bell is not None:
                bell.reset(number)
            launch.start(self.process, context)
            _started.add(self.process)
            self._pidfd = launch.pidfd(self.process.pid)
        except BaseException as error:
            self.channel.close()
            # Of the fork server, or of fork itself; or a daemonic process may have no children.
            if isinstance(error, (EOFError, OSError, AssertionError)):
                raise _unstarted(context, error) from error
            raise
        finally:
            theirs.close()

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
        except psutil.Error:  # it has ended
            return False

    @property
    def end(self) -> int:
        """A descriptor to wait for, ready when the process has ended."""
        # The sentinel is a pipe under fork and spawn, which a grandchild may hold open.
        return int(self.process.sentinel if self._pidfd is None else self._pidfd)

    @property
    def owes(self) -> bool:
        """Whether it has not answered yet what it was asked."""
        bell = self._bell
        return self._asked or (
            bell is not None and (bell.owes(self.number) or bell.failed(self.number))
        )

    def ask(self, message: object) -> None:
        """Send what will be answered."""
        self._asked = True
        self._send(message)

    def _send(self, message: object) -> None:
        if self._bell is not None:
            self._bell.note(self.number)  # first: a long message waits until it is being read
        self.channel.send(message)

    def answer(self) -> Any:
        """Receive an answer, which `wait` has found to be there; `Lost` if there will be none."""
        self._asked = True  # until all of it is here
        if not self.channel.pending():
            raise Lost  # it ended, though a child of its own may hold the pipe open
        message = self.channel.receive()
        self._asked = False
        return message

    @property
    def bell(self) -> Bell | None:
        """The caller's side of the doorbell, if there is one."""
        return self._bell

    def hear(self) -> list[Any]:
        """Receive all that is there from a worker that attends; `Lost` if nothing will come."""
        if not self.channel.pending():
            raise Lost
        return self.channel.receive_all()

    def failure(self, patience: float | None) -> Failure:
        """Receive the exception that the bell has announced; `Lost` if it will not come."""
        # What stayed in the pipe would pass for the answer to the next message.
        assert self._bell is not None  # noqa: S101  # for the type checker
        if not self.wait(patience):
            raise Lost
        failure: Failure = self.answer()
        self._bell.taken(self.number)
        return failure

    def wait(self, patience: float | None = None) -> bool:
        """Whether within `patience` seconds it has answered or ended."""
        watched: list[Any] = [self.channel, self.end]
        return bool(wait(watched, patience))

    def ended(self) -> str:
        """How the process ended, in words; waits for it, and brings it about if need be."""
        connection.wait([self.end], LEAVE)
        if self.process.exitcode is None:  # a fork server tells it a moment later
            self.process.join(LEAVE)
        self.kill()
        how = told(self.process.exitcode)
        if self.process.exitcode == SIGKILLED and self._was_oom():
            how += ", likely out of memory: the OOM killer has struck in its cgroup"
        return how

    def _was_oom(self) -> bool:
        """Whether the cgroup counts more OOM kills than at its start and at the last such look."""
        global _oom_kills
        before = max(self._oom_kills, _oom_kills)
        _oom_kills = max(before, cores.oom_kills() or 0)
        return _oom_kills > before

    def kill(self) -> None:
        """End it at once, whatever it runs."""
        kill_all([self])

    def leave(self) -> None:
        """Ask it to end."""
        with suppress(Lost, OSError):
            self._send(Exit())

    def close(self) -> None:
        """Wait for its end, or bring it about, and give back its descriptors."""
        connection.wait([self.end], LEAVE)
        self.kill()
        self.process.join(LEAVE)  # until it is reaped too, by us or by the fork server
        self.channel.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        if self.process.exitcode is None:
            # Somebody else reaped it. multiprocessing has no word for that: it would take the
            # process for running, and keep it and its descriptors, for ever.
            self.process._popen.returncode = UNKNOWN
        if not util.is_exiting():  # else multiprocessing may be about to join it, closed or not
            self.process.close()


def kill_all(members: Sequence[Member]) -> None:
    """End them at once, whatever they run. An interrupt has to wait until they are gone."""
    interrupt = None
    while left := [member for member in members if member.alive]:
        try:
            for member in left:  # alive: else its number may be another process's by now
                member.process.kill()
            for member in left:
                member.process.join(LEAVE)
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _unstarted(context: BaseContext, error: Exception) -> WorkerLostError:
    return WorkerLostError(
        f"a worker process could not be started with {context.get_start_method()!r}: "
        f"{type(error).__name__}: {error}. Limits on memory, processes or descriptors may be too "
        'tight; fewer workers, another start method or backend="threads" need less'
    )


def told(exitcode: int | None) -> str:
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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

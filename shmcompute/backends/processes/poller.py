"""`Poller`: waits for news from workers, or for a wake-up from another thread."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from shmcompute.backends.processes.worker_process import WorkerProcess
from shmcompute.errors import WorkerLostError
from shmcompute.system.unpatched import select, threading


class Wakeup:
    """One more descriptor to wait for, by which another thread has the waiting one look.

    Attributes
    ----------
    asleep : bool
        Set by the thread that is about to wait, before it looks for the last time: who then wakes
        it does not do so in vain, and who finds it unset needn't.
    """

    def __init__(self) -> None:
        self.asleep = False
        # Of the descriptors, which may be closed meanwhile. Reentrant, for handlers of signals.
        self._lock = threading.RLock()
        self._ends: tuple[int, ...] = ()

    def open(self) -> None:
        """A thread is about to wait.

        Raises
        ------
        WorkerLostError
            If there are no more descriptors.
        """
        with self._lock:
            try:
                self._ends = os.pipe()
            except OSError as error:
                raise WorkerLostError(
                    f"no task can be handed to workers: {type(error).__name__}: {error}. The limit "
                    'on descriptors (ulimit -n) may be too tight; backend="threads" needs fewer'
                ) from error
            os.set_blocking(self._ends[0], False)

    def close(self) -> None:
        """No thread waits any more."""
        with self._lock:
            ends, self._ends = self._ends, ()
            for end in ends:
                os.close(end)

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._ends[0]

    def wake(self) -> None:
        """Have the thread that waits look."""
        if self.asleep:
            with self._lock:
                if self._ends and self.asleep:
                    self.asleep = False
                    os.write(self._ends[1], b"\0")

    def clear(self) -> None:
        """Take the wake-ups that came."""
        with suppress(BlockingIOError):
            os.read(self._ends[0], 4096)


class Poller:
    """Which of these workers have said something or ended.

    What is waited for is registered once: `connection.wait` would do that each time.
    """

    def __init__(self, workers: Iterable[WorkerProcess], wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._workers: dict[int, WorkerProcess | None] = {wakeup.fileno(): None}
        for worker in workers:
            self._workers[worker.pipe.fd] = self._workers[worker.end] = worker
        self._poll = select.poll()
        for descriptor in self._workers:
            self._poll.register(descriptor, select.POLLIN)

    def news(self, timeout: float | None) -> list[WorkerProcess]:
        """Workers that have something to tell, as soon as there are any; or a wake-up came."""
        ready = self._poll.poll(None if timeout is None else timeout * 1000)
        workers = dict.fromkeys(self._workers[descriptor] for descriptor, _ in ready)
        if None in workers:
            self._wakeup.clear()
            del workers[None]
        return [worker for worker in workers if worker is not None]

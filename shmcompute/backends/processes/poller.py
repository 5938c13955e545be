"""`Poller`: waits for news from workers, or for a wake-up from another thread."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import connection

from shmcompute.backends.processes.worker_process import WorkerProcess


class WakeupPipe:
    """One more descriptor to wait for, there as long as somebody waits.

    Attributes
    ----------
    asleep : bool
        Set by who waits before it looks for the last time; who then wakes does not do so in vain.
    """

    def __init__(self) -> None:
        self.asleep = False
        self._lock = threading.Lock()
        self._reader: connection.Connection[bytes, bytes] | None = None
        self._writer: connection.Connection[bytes, bytes] | None = None

    def open(self) -> None:
        """Somebody is about to wait."""
        with self._lock:
            self._reader, self._writer = connection.Pipe(duplex=False)

    def close(self) -> None:
        """Nobody does any more."""
        with self._lock:
            for end in (self._reader, self._writer):
                if end is not None:
                    end.close()
            self._reader = self._writer = None

    def fileno(self) -> int:
        """What to wait for."""
        assert self._reader is not None  # noqa: S101  # for the type checker
        return self._reader.fileno()

    def wake(self) -> None:
        """Have the one who waits look."""
        if self.asleep:
            with self._lock, suppress(OSError):
                if self._writer is not None and self.asleep:
                    self.asleep = False
                    self._writer.send_bytes(b"\0")

    def clear(self) -> None:
        """Take the wake-ups that came."""
        if self._reader is not None:
            while self._reader.poll():
                self._reader.recv_bytes()


class Poller:
    """Which of these workers have said something or ended.

    What is waited for is registered once: `connection.wait` would do that each time.
    """

    def __init__(self, workers: Iterable[WorkerProcess], wakeup: WakeupPipe) -> None:
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

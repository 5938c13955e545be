"""`ArrayLock`: one holder at a time of a shared array, among threads and processes."""

from __future__ import annotations

import os
import threading
from types import TracebackType
from typing import Self

from shmcompute import config
from shmcompute.errors import LockError, LockTimeoutError
from shmcompute.storage import Segment
from shmcompute.system.file_locks import FileLocks


class _Thread(threading.local):
    """What stands for a thread; its number may be another one's when it has ended."""

    def __init__(self) -> None:
        self.token = object()


_thread = _Thread()


class ArrayLock:
    """A lock of a `SharedArray`, made by its ``lock()``; also what ``with`` calls its state.

    The kernel holds it for us, as a lock on a byte of the segment, and drops it when its holder
    dies. It excludes threads and processes alike. Who took it releases it: the same thread, once.

    Attributes
    ----------
    abandoned : bool
        Whether the last holder died with it, so that what it guards may be half written. Known to
        the next taker alone.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.zeros(2)) as arr:
    ...     lock = arr.lock()
    ...     if lock.acquire(timeout=1):
    ...         try:
    ...             arr += 1
    ...         finally:
    ...             lock.release()
    ...     print(arr.array, lock.abandoned)
    [1. 1.] False
    """

    def __init__(self, segment: Segment, timeout: float | None = None) -> None:
        self.abandoned = False
        self._locks: FileLocks | None = None  # while it is held
        self._segment = segment
        self._timeout = config.seconds("timeout", timeout)
        self._thread = object()  # of who holds it

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take the lock; whether it was had in time.

        Parameters
        ----------
        block : bool
            Whether to wait for whoever holds it.
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        LockError
            If this thread holds it already: it would wait for itself.
        """
        seconds = config.seconds("timeout", timeout) if block else 0.0
        locks = self._segment.locks()
        try:
            if (*locks.key, _thread.token) in _holders:
                raise LockError(
                    f"this thread holds the lock of {self._segment.handle.name!r} already and "
                    "would wait for itself; release it first"
                )
            return locks.wait(locks.byte, seconds) and self._taken(locks)
        finally:
            if self._locks is not locks:
                locks.close()

    def _taken(self, locks: FileLocks) -> bool:
        self.abandoned = locks.note.read(locks.fd) != 0
        locks.note.write(locks.fd, os.getpid())
        self._thread = _thread.token
        self._locks = locks  # first: an interrupt from here on is undone by `_drop`
        _holders.add((*locks.key, self._thread))
        return True

    def release(self) -> None:
        """Let the next one have it.

        Raises
        ------
        LockError
            If it is not held by this thread through this object; a forked child holds nothing.
        """
        locks = self._locks
        if locks is None or not locks.ours or self._thread is not _thread.token:
            raise LockError(f"the lock of {self._segment.handle.name!r} {self._whose(locks)}")
        locks.note.clear(locks.fd)  # while it is ours
        self._drop()

    def _whose(self, locks: FileLocks | None) -> str:
        if locks is None:
            return "is not held through this object; acquire() it first"
        who = "thread" if locks.ours else "process, which forked this one,"
        return f"is held by another {who} and is released there"

    def _drop(self) -> None:
        locks = self._locks
        if locks is not None and locks.ours:
            _holders.discard((*locks.key, self._thread))
        self._locks = None  # not before: this thread would count as its holder for good
        if locks is not None:
            locks.close()

    def __enter__(self) -> Self:
        if not self.acquire(timeout=self._timeout):
            raise LockTimeoutError(
                f"the lock of {self._segment.handle.name!r} was not had within {self._timeout} s"
                f"{self._holder()}"
            )
        return self

    def _holder(self) -> str:
        locks = self._segment.locks()
        try:
            pid = locks.note.read(locks.fd)
        finally:
            locks.close()
        return f"; process {pid} holds it" if pid else ""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __del__(self) -> None:
        self._drop()  # as by death: the note stays

    def __reduce__(self) -> str:
        raise TypeError("a lock does not travel; send the array, and call lock() there")

    def __repr__(self) -> str:
        held = self._locks is not None and self._locks.ours
        return f"ArrayLock({self._segment.handle.name!r}, held={held})"


_holders: set[tuple[int, int, int, object]] = set()  # what is held here, and the thread that does


os.register_at_fork(after_in_child=_holders.clear)

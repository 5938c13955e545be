"""What can go wrong, by name.

Wrong arguments stay ``TypeError`` and ``ValueError``. Everything else that this library raises
is a `ShmComputeError`, so one ``except`` catches it all. Where the standard library has a name
for the same trouble, ours is a subclass of it too.
"""

from __future__ import annotations

import pickle
import queue
from collections.abc import Sequence
from concurrent import futures


class ShmComputeError(Exception):
    """Base of every error that shmcompute raises of its own."""


class StorageError(ShmComputeError):
    """A segment could not be made, mapped or removed."""


class StorageFullError(StorageError):
    """There is not enough room for a segment; nothing was left behind."""


class SegmentNotFoundError(StorageError, FileNotFoundError):
    """No segment answers to that name."""


class SegmentExistsError(StorageError, FileExistsError):
    """The name asked for is taken."""


class SegmentFormatError(StorageError):
    """Something answers to that name, but it is not a whole segment of ours."""


class ClosedError(ShmComputeError, RuntimeError):
    """An array or a pool was used after its ``close()``."""


class LockError(ShmComputeError, RuntimeError):
    """A lock was released by who does not hold it, or asked for again by who does."""


class LockTimeoutError(ShmComputeError, TimeoutError):
    """Somebody else held a lock for longer than the ``timeout``."""


class QueueFullError(ShmComputeError, queue.Full):
    """There was no room in a queue."""


class QueueEmptyError(ShmComputeError, queue.Empty):
    """There was nothing in a queue."""


class QueueClosedError(ClosedError, ValueError):
    """Something was put into a queue that is closed, or asked of one that is empty, too."""


class ForkedPoolError(ShmComputeError):
    """A pool was used in a process forked from the one that made it."""


class KernelTypeError(ShmComputeError, TypeError):
    """A kernel does not take these arguments, or returns instead of writing in place."""


class OutOfBoundsError(ShmComputeError, IndexError):
    """Under ``debug=True``: a kernel wrote outside of its part; only a copy was touched."""


class ReadOnlyError(ShmComputeError, ValueError):
    """Under ``debug=True``: a kernel wrote what it was to read; only a copy was touched."""


class KernelSerializationError(ShmComputeError, pickle.PicklingError):
    """A kernel or an argument does not travel to another process, or a result back from it."""


class _ChunksError(ShmComputeError):
    """An error that says which chunks it leaves undefined."""

    def __init__(self, message: str, chunks: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(message)
        self.chunks = list(chunks)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.args[0], self.chunks)


class KernelTimeoutError(_ChunksError, TimeoutError):
    """A call overran its ``timeout``.

    Attributes
    ----------
    chunks : list of (start, stop)
        Ranges along the split axis whose content is undefined or was not reached.
    """


class WorkerLostError(_ChunksError, futures.BrokenExecutor):
    """A worker process died while it had work, or before it was ready. The pool goes on.

    Attributes
    ----------
    exitcode : int or None
        As `multiprocessing.Process.exitcode`: negative for a signal.
    chunks : list of (start, stop)
        Ranges along the split axis whose content is undefined.
    """

    def __init__(
        self,
        message: str,
        exitcode: int | None = None,
        chunks: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__(message, chunks)
        self.exitcode = exitcode

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.args[0], self.exitcode, self.chunks)


class RemoteKernelError(ShmComputeError):
    """Stands in for a kernel's exception that can't be pickled; carries its text."""

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
    """Base of all errors that only shmcompute raises."""


class StorageError(ShmComputeError):
    """A segment could not be made, mapped or removed."""


class StorageFullError(StorageError):
    """There is not enough memory for a segment; nothing was left behind."""


class SegmentNotFoundError(StorageError, FileNotFoundError):
    """There is no segment of that name."""


class SegmentExistsError(StorageError, FileExistsError):
    """There is a segment, or another file, of that name already."""


class SegmentFormatError(StorageError):
    """There is something of that name, but it is not a complete segment of shmcompute."""


class ClosedError(ShmComputeError, RuntimeError):
    """An array or a pool was used after its ``close()``."""


class LockError(ShmComputeError, RuntimeError):
    """A lock was released by a thread that does not hold it, or taken again by one that does."""


class LockTimeoutError(ShmComputeError, TimeoutError):
    """Another thread or process held a lock for longer than the ``timeout``."""


class QueueFullError(ShmComputeError, queue.Full):
    """A queue has no room, or had none within the ``timeout``."""


class QueueEmptyError(ShmComputeError, queue.Empty):
    """A queue has nothing to get, or had nothing within the ``timeout``."""


class QueueClosedError(ClosedError, ValueError):
    """A put into a closed queue, or a get from one that is closed and empty."""


class ForkedPoolError(ShmComputeError):
    """A pool was used in a process forked from the one that made it."""


class KernelTypeError(ShmComputeError, TypeError):
    """A kernel does not take these arguments, or returns instead of writing in place."""


class OutOfBoundsError(ShmComputeError, IndexError):
    """Under ``debug=True``: a kernel wrote outside of its part; only a copy was touched."""


class ReadOnlyError(ShmComputeError, ValueError):
    """Under ``debug=True``: a kernel wrote a read-only argument; only a copy was touched."""


class KernelSerializationError(ShmComputeError, pickle.PicklingError):
    """A kernel, an argument or a result can't be sent to another process."""


class _ChunksError(ShmComputeError):
    """An error that says which chunks it leaves undefined.

    Only the message is among its `args`: so it pickles as any exception does, attributes included.
    """

    sweep: int | None = None

    def __init__(self, message: str, chunks: Sequence[tuple[int, int]] = ()) -> None:
        super().__init__(message)
        self.chunks = list(chunks)


class KernelTimeoutError(_ChunksError, TimeoutError):
    """A call overran its ``timeout``.

    Attributes
    ----------
    chunks : list of (start, stop)
        Ranges along the split axis whose content is undefined, or that were not begun.
    sweep : int or None
        Of a `parallel_iterate`: how many sweeps were over.
    """


class WorkerLostError(_ChunksError, futures.BrokenExecutor):
    """A worker process died while it had work, or before it was ready. The pool goes on.

    Attributes
    ----------
    exitcode : int or None
        As `multiprocessing.Process.exitcode`: negative for a signal.
    chunks : list of (start, stop)
        Ranges along the split axis whose content is undefined.
    sweep : int or None
        Of a `parallel_iterate`: how many sweeps were over.
    """

    def __init__(
        self, message: str, exitcode: int | None = None, chunks: Sequence[tuple[int, int]] = ()
    ) -> None:
        super().__init__(message, chunks)
        self.exitcode = exitcode


class WorkerInitError(ShmComputeError, futures.BrokenExecutor):
    """The ``initializer`` of a pool failed where kernels and tasks were to run.

    Its cause is what the initializer raised, and the cause of that the worker's traceback.
    """


class RemoteKernelError(ShmComputeError):
    """Stands in for a kernel's exception that can't be pickled; carries its text."""

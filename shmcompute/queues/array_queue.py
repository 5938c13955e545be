"""`ArrayQueue`: arrays from process to process through slots of shared memory.

The file is long because it is one class, whose methods are documented for users.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numba
import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from shmcompute import config
from shmcompute.arrays import Shape, SharedArray, refuse_subclass
from shmcompute.errors import QueueClosedError
from shmcompute.queues import slot_ring
from shmcompute.queues.reservation import Peek, Reservation
from shmcompute.queues.slot_table import SlotTable
from shmcompute.storage import Layout
from shmcompute.typing import Array, StorageName


class ArrayQueue:
    """A bounded queue of arrays of one shape and dtype, for any number of processes and threads.

    It is an argument like any other to `multiprocessing.Process`, to pools and executors, under
    every start method; what travels is a handle. An array that is put is copied once, into its
    slot; `reserve` and `peek` hand out the slot itself. Arrays of one producer come in the order in
    which they were put. A queue of one slot is the standard library's ``Pipe`` between two
    processes.

    Parameters
    ----------
    shape : int or tuple of int
        Of each array.
    dtype : dtype_like
        Of each array.
    slots : int
        How many arrays there is room for: those that are queued, and those in the hands of who puts
        or gets one.
    storage : {'auto', 'shm', 'array'}
        As for `SharedArray`.

    Attributes
    ----------
    shape, dtype
        Of each array.
    slots : int
        How many arrays there is room for.
    closed : bool
        Whether `close` was called, by anybody.
    owner : bool
        Whether this process made it and so is the one that removes it.

    Raises
    ------
    TypeError, ValueError
        For a bad shape, dtype, number of slots or storage.
    StorageFullError
        If there is no room for it.

    Notes
    -----
    A process that dies leaves no lock behind. What it held, a slot that it filled or read, is lost
    and becomes free for others as soon as they need it.

    A forked child may use the queue of its parent. It is another process: what its parent has
    reserved or looks at is not the child's.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.ArrayQueue(3, "f8", slots=2) as queue:
    ...     queue.put(np.ones(3))
    ...     with queue.reserve() as slot:  # no copy: written where it will be read
    ...         slot[:] = 2
    ...     queue.close()  # no more will come
    ...     for array in queue:
    ...         print(array)
    [1. 1. 1.]
    [2. 2. 2.]
    """

    def __init__(
        self, shape: Shape, dtype: DTypeLike, slots: int, *, storage: StorageName = "auto"
    ) -> None:
        if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # numba is not fully typed
            raise RuntimeError(
                "ArrayQueue is machine code, which NUMBA_DISABLE_JIT switches off; unset it"
            )
        config.one_of("storage", storage, ("auto", "shm", "array"))
        count = config.count("slots", slots)
        item = Layout.of(shape, dtype)
        whole = Layout.of((count, *item.shape), item.dtype)  # refuses what is too large
        size = _words(count) + whole.nbytes
        memory = SharedArray.empty(size, np.uint8, storage=storage)
        memory[: _words(count)] = 0  # it may be warm
        self._set_up(memory, item, count)
        slot_ring.rebuild(self._table.base, count)

    def _set_up(self, memory: SharedArray, item: Layout, count: int) -> None:
        self.shape, self.dtype, self.slots = item.shape, item.dtype, count
        self._item, self._memory = item, memory
        self._data: Array = np.ndarray(
            (count, *item.shape), item.dtype, buffer=memory.array, offset=_words(count)
        )
        base = memory.array.__array_interface__["data"][0]
        self._table = SlotTable(memory.segment, base, count)

    @property
    def closed(self) -> bool:
        """Whether `close` was called, by anybody."""
        return self._table.word(slot_ring.CLOSED) != 0

    @property
    def owner(self) -> bool:
        """Whether this process made it and so is the one that removes it."""
        return self._memory.owner

    def put(
        self, array: ArrayLike | None, block: bool = True, timeout: float | None = None
    ) -> None:
        """Copy an array into the queue.

        Parameters
        ----------
        array : array_like or None
            Of the queue's shape and dtype. None travels, too: it ends the iteration of the one
            who gets it, as a sentinel does.
        block : bool
            Whether to wait for room.
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        QueueFullError
            If there was no room in time; also a `queue.Full`.
        QueueClosedError
            If the queue is closed, or was while this waited.
        TypeError, ValueError
            For another dtype; for another shape.
        """
        source = None if array is None else self._checked(array)
        reservation = self.reserve(block, timeout)
        with reservation as slot:
            if source is None:
                reservation.none = True
            else:
                np.copyto(slot, source)

    def _checked(self, array: ArrayLike) -> Array:
        refuse_subclass("what is put", array)
        source = np.asarray(array)
        if source.dtype != self.dtype:
            raise TypeError(
                f"put: expected an array of {self.dtype}, got {source.dtype}; convert it: "
                f"np.asarray(...).astype({str(self.dtype)!r})"
            )
        if source.shape != self.shape:
            raise ValueError(
                f"put: expected an array of shape {self.shape}, got {source.shape}; a queue's "
                "slots have one shape: fill a part of one within reserve(), or make another queue"
            )
        return source

    def reserve(self, block: bool = True, timeout: float | None = None) -> Reservation:
        """A free slot, for ``with``: it is queued as the block ends, or not if that raises.

        It holds what was in it before. Keep no view of it after the block. Parameters and errors
        are those of `put`.

        Examples
        --------
        >>> import numpy as np, shmcompute as sc
        >>> with sc.ArrayQueue(2, "i8", slots=1) as queue:
        ...     with queue.reserve(timeout=1) as slot:
        ...         slot[:] = 7
        ...     print(queue.get())
        [7 7]
        """
        return Reservation(self._table, self._data, _patience(block, timeout))

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """A copy of the next array; None if that was put.

        Parameters
        ----------
        block : bool
            Whether to wait for one.
        timeout : float, optional
            Seconds to wait at most.

        Raises
        ------
        QueueEmptyError
            If none came in time; also a `queue.Empty`.
        QueueClosedError
            If the queue is closed and all of it was taken.
        """
        with self.peek(block, timeout) as slot:
            return None if slot is None else slot.copy()

    def peek(self, block: bool = True, timeout: float | None = None) -> Peek:
        """The slot of the next array, for ``with``: nobody else gets it meanwhile.

        It is taken as the block ends. If that raises it stays, the next to be had. Keep no view of
        it after the block. Parameters and errors are those of `get`.

        Examples
        --------
        >>> import numpy as np, shmcompute as sc
        >>> with sc.ArrayQueue(2, "i8", slots=1) as queue:
        ...     queue.put([1, 2])
        ...     with queue.peek() as slot:
        ...         print(slot.sum())
        3
        """
        return Peek(self._table, self._data, _patience(block, timeout))

    def __iter__(self) -> Iterator[Array]:
        """Copies of arrays as they come, until the queue is closed and empty, or None comes."""
        while True:
            try:
                array = self.get()
            except QueueClosedError:
                return
            if array is None:
                return
            yield array

    def put_nowait(self, array: ArrayLike | None) -> None:
        """`put` without waiting."""
        self.put(array, block=False)

    def get_nowait(self) -> Any:
        """`get` without waiting."""
        return self.get(block=False)

    def qsize(self) -> int:
        """How many arrays are there to get, at this moment."""
        return self._table.between(slot_ring.READY_FROM, slot_ring.READY_TO)

    def empty(self) -> bool:
        """Whether there is none, at this moment."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether there is no room, at this moment."""
        return self._table.between(slot_ring.FREE_FROM, slot_ring.FREE_TO) == 0

    def close(self) -> None:
        """Let nothing more be put, by anybody; what is there can still be got. Idempotent.

        Who waits to put is told; who waits to get is told once all is taken.
        """
        self._table.close()

    def unlink(self) -> None:
        """Close it, and remove its name, so that it can travel no more; only its owner may.

        Who has it keeps it until he lets go of it. Idempotent. Done by leaving ``with``, too.
        """
        if not self._memory.closed:
            self._memory.unlink()
            self.close()
            self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.owner:
            self.unlink()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # a copy of what holds it speaks through the same queue

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (self._memory, self._item, self.slots)

    def __repr__(self) -> str:
        return (
            f"ArrayQueue({self.shape}, {str(self.dtype)!r}, slots={self.slots}, "
            f"name={self._memory.name!r}, qsize={self.qsize()}, closed={self.closed})"
        )


def _patience(block: bool, timeout: float | None) -> float | None:
    return config.seconds("timeout", timeout) if block else 0.0


def _words(count: int) -> int:
    return slot_ring.bytes_for(count)


def _attached(memory: SharedArray, item: Layout, count: int) -> ArrayQueue:
    queue = ArrayQueue.__new__(ArrayQueue)
    queue._set_up(memory, item, count)
    return queue

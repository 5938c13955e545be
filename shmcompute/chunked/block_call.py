"""`BlockCall`: kernels on one block of some arrays, wherever it is. It knows no engine.

It is what travels: small, picklable, and the same for all blocks. Any executor can carry it: call
it with where the block starts, how long it is, and the blocks that kernels read.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.apply import parallel_apply
from shmcompute.backends.processes import load_kernel
from shmcompute.chunking import Halo, OffsetFrom, Read, Scratch, Split, Whole, Write, offset
from shmcompute.default_pools import default_pool
from shmcompute.kernels import unwrap
from shmcompute.pool import Pool
from shmcompute.typing import Array


class Seen(NamedTuple):
    """An argument of a kernel: how it sees the block of a slot."""

    slot: int
    marker: type[Any]  # Split, Read, Write, Whole or Halo
    depth: Any = 0  # of a halo


@dataclass(frozen=True)
class Slot:
    """One of the arrays that kernels see, each once however often they do."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]  # of all of it; a block has another length along the axis
    axis: int | None  # along which it is cut; None: each call sees all of it
    fetched: bool  # whether its content is needed
    written: bool
    margin: int = 0  # how many elements more than its own a block has

    def block_shape(self, length: int) -> tuple[int, ...]:
        """The shape of a block of so many elements along the axis."""
        if self.axis is None:
            return self.shape
        before, after = self.shape[: self.axis], self.shape[self.axis + 1 :]
        return (*before, length + self.margin, *after)

    def own(self, block: Any, length: int) -> Array:
        """A block that kernels may be called with; one that they write is nobody else's."""
        expected = self.block_shape(length)
        if not self.fetched:
            return np.empty(expected, self.dtype)
        # Blocks are others' too, and may be read-only, or have strides of 0.
        array = np.array(block, order="C", copy=True if self.written else None).view(np.ndarray)
        if (array.dtype, array.shape) != (self.dtype, expected):
            raise TypeError(
                f"a block is {array.dtype} of shape {array.shape}, but its array said "
                f"{self.dtype} of shape {expected}: whoever made that array told a wrong dtype, "
                "meta or chunks"
            )
        return array


@dataclass(frozen=True)
class BlockCall:
    """Kernels and what they are called with, but for the blocks.

    Parameters
    ----------
    kernels : tuple of bytes
        Of each link of the chain, as `dump_kernel` makes them.
    links : tuple of tuples
        The arguments of each: `Seen`, `sc.offset`, or what is passed as it is.
    slots : tuple of Slot
    options : dict
        ``chunksize`` and ``schedule`` within a block.
    blocks : int
        How many there are in all.
    """

    kernels: tuple[bytes, ...]
    links: tuple[tuple[Any, ...], ...]
    slots: tuple[Slot, ...]
    options: dict[str, Any] = field(default_factory=dict)
    blocks: int = 1

    def __call__(self, start: int, length: int, *blocks: Any) -> tuple[Array, ...]:
        """Run it on the block ``[start, start + length)``; the blocks that were written.

        Parameters
        ----------
        start, length : int
            Along the axis of the whole.
        *blocks : ndarray
            One for each slot that is fetched, in their order; none of them is changed.
        """
        arrays = self._own(iter(blocks), length)
        calls = self.calls(list(map(load_kernel, self.kernels)), start, arrays)
        pool = _threads(self.blocks)
        try:
            if length and pool.backend == "serial" and self._is_one_chunk(calls):
                ((kernel, *given),) = calls  # as a plan would, whose making takes ten times as long
                kernel(*map(_as_compiled, given))
            else:
                parallel_apply(calls, pool=pool, **self.options)
        except BaseException as error:
            error.add_note(f"in the block [{start}, {start + length}) of its arrays")
            raise
        written = zip(arrays, self.slots, strict=True)
        return tuple(array for array, slot in written if slot.written)

    def __dask_tokenize__(self) -> tuple[str, str]:
        """What Dask tells equal calls by; to look into each part takes it ten times as long."""
        return type(self).__name__, hashlib.sha256(pickle.dumps(self)).hexdigest()

    def _is_one_chunk(self, calls: Sequence[Any]) -> bool:
        """Whether a block is one call of a jitted kernel, where one thread does all."""
        jitted = len(calls) == 1 and isinstance(unwrap(calls[0][0])[0], Dispatcher)
        return jitted and self.options in ({}, {"chunksize": None, "schedule": "static"})

    def _own(self, blocks: Iterator[Any], length: int) -> list[Array]:
        return [slot.own(next(blocks) if slot.fetched else None, length) for slot in self.slots]

    def samples(self, length: int) -> list[Array]:
        """Blocks of that length, to look at their types; nothing is in them."""
        return [np.empty(slot.block_shape(length), slot.dtype) for slot in self.slots]

    def calls(self, kernels: Sequence[Any], start: int, arrays: Sequence[Array]) -> list[Any]:
        """What `parallel_apply` is called with: a chain."""
        return [
            (kernel, *(self._argument(one, start, arrays) for one in link))
            for kernel, link in zip(kernels, self.links, strict=True)
        ]

    def _argument(self, given: Any, start: int, arrays: Sequence[Array]) -> Any:
        if given is offset:
            return OffsetFrom(start)
        if not isinstance(given, Seen):
            return given
        array, axis = arrays[given.slot], self.slots[given.slot].axis
        if given.marker is Whole:
            return Whole(array)
        if given.marker is Halo:
            return Halo(array, given.depth, axis)
        return given.marker(array, axis)


@dataclass(frozen=True)
class ReducingCall(BlockCall):
    """A kernel that returns the result of a block, and writes nothing."""

    def __call__(self, start: int, length: int, *blocks: Any) -> Any:
        """Call it; what it returns. A block without elements is no chunk, as in memory."""
        if not length:
            return None
        arrays = self._own(iter(blocks), length)
        for array in arrays:
            array.flags.writeable = False
        ((kernel, *given),) = self.calls(list(map(load_kernel, self.kernels)), start, arrays)
        try:
            return kernel(*map(_plain, given))
        except BaseException as error:
            error.add_note(f"in the block [{start}, {start + length}) of its arrays")
            raise


class BlockResults(NamedTuple):
    """A call, the lengths of its blocks, and what its kernel returned for each."""

    call: BlockCall
    lengths: tuple[int, ...]
    results: list[Any]

    def of_chunks(self) -> BlockResults:
        """Without those of blocks that have no elements."""
        kept = [pair for pair in zip(self.lengths, self.results, strict=True) if pair[0]]
        return BlockResults(self.call, tuple(one for one, _ in kept), [one for _, one in kept])


def _as_compiled(given: Any) -> Any:
    """The same, of the type that the kernel was compiled for: what is read can't be written."""
    plain = _plain(given)
    if isinstance(given, (Read, Halo, Whole)) and isinstance(plain, np.ndarray):
        plain = plain.view()
        plain.flags.writeable = False
    return plain


def _plain(given: Any) -> Any:
    """What a kernel is called with for an argument, where a block is one chunk."""
    if isinstance(given, OffsetFrom):
        return given.base
    if isinstance(given, Scratch):
        return np.zeros(given.shape, given.dtype)
    return given.value if isinstance(given, MARKERS) else given


def _threads(blocks: int) -> Pool:
    """The threads that a task may use: as many as its worker has.

    Where it is alone with its thread, or where each core has a block of its own and no worker
    counts threads (Dask's scheduler of threads), to hand a block to others only takes time.
    """
    count = _threads_of_worker()
    pool = default_pool("threads") if count is None else _pool_of(count)
    alone = pool.workers == 1 or (count is None and blocks >= pool.workers)
    return default_pool("serial") if alone else pool


def _threads_of_worker() -> int | None:
    """How many tasks a Dask worker runs at once; None elsewhere."""
    worker = sys.modules.get("distributed.worker")
    try:
        return None if worker is None else int(worker.get_worker().state.nthreads)
    except (ValueError, AttributeError):  # this is no task of a worker's
        return None


@functools.cache
def _pool_of(count: int) -> Pool:
    return Pool(count, backend="threads")


MARKERS = (Split, Read, Write, Whole, Halo)  # those that a kernel may see a chunked array by

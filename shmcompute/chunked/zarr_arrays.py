"""`apply_in_place`: kernels on zarr arrays, which read as before until all is done.

Tasks read the array as it is, and write a *new version* of it beside it, each a region of whole
chunks or shards of its own. Then the two change places, in one step. So a failure leaves what was
there; and a worker that was cut off and goes on writing does so where nobody reads, and what a
task run twice has written is the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, as_completed, wait
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from shmcompute import config
from shmcompute.chunked.block_call import BlockCall, BlockResults, Slot
from shmcompute.chunked.new_versions import new_versions
from shmcompute.chunked.specify import Source, depth_of, specify
from shmcompute.chunking import Halo, ends_of
from shmcompute.errors import KernelTimeoutError, ReadOnlyError
from shmcompute.plans import Options
from shmcompute.pool import Pool
from shmcompute.progress import Asked, Meter
from shmcompute.typing import Array

PATIENCE = 2.0  # seconds that a call which failed waits for tasks that run still
REGION = 1 << 24  # bytes that a task reads or writes of one array, or as many as a chunk needs


class ZarrArray:
    """A zarr array as `specify` looks at it; its blocks are regions of whole chunks."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        place = getattr(array.store, "root", None)  # by whatever name it was opened
        self.key = str(array.store_path if place is None else _real(array))

    @property
    def edges(self) -> tuple[tuple[int, ...], ...]:
        # What is cut, and where, is for `regions` to say: here all have one block.
        return tuple((size,) for size in self.shape)


def wrap(value: Any) -> ZarrArray | None:
    """A zarr array; None for all else."""
    return ZarrArray(value) if isinstance(value, zarr.Array) else None


@dataclass(frozen=True)
class Reading:
    """What a task reads of one array."""

    path: str  # of the array, on the file system
    axis: int | None
    halo: Halo | None

    def block(self, start: int, length: int) -> Array:
        array = zarr.open_array(self.path, mode="r")
        if self.axis is None:
            return np.asarray(array[...])
        if self.halo is None:
            return np.asarray(array[self._along(start, start + length)])
        before, after = depth_of(self.halo)
        if self.halo.boundary is None:
            return np.asarray(array[self._along(start, start + length + before + after)])
        return self._padded(array, start - before, start + length + after)

    def _along(self, start: int, stop: int) -> tuple[slice, ...]:
        return (slice(None),) * (self.axis or 0) + (slice(start, stop),)

    def _padded(self, array: Any, start: int, stop: int) -> Array:
        """A part that may begin before the array, or end behind it, as `numpy.pad` has it."""
        size = array.shape[self.axis]
        assert self.halo is not None  # noqa: S101  # for the type checker
        if start >= 0 and stop <= size:
            return np.asarray(array[self._along(start, stop)])
        depth, boundary = depth_of(self.halo), self.halo.boundary
        # Where each element comes from, as NumPy pads the indices; those of a number are -1.
        before, after = ends_of(size, depth, boundary)
        first = before[depth[0] + start : depth[0] + min(stop, 0)] if start < 0 else before[:0]
        last = after[max(start - size, 0) : max(stop - size, 0)]
        own = np.arange(max(start, 0), min(stop, size))
        places = np.concatenate([first, own, last])
        known = np.unique(places[places >= 0])
        low, high = (0, 0) if not known.size else (int(known[0]), int(known[-1]) + 1)
        if high - low > 2 * known.size + 64:  # both ends of the array, not what is in between
            read = np.asarray(array.get_orthogonal_selection(self._picked(known)))
            index = np.searchsorted(known, places)
        else:
            read = np.asarray(array[self._along(low, high)])
            index = places - low
        block = np.take(read, np.maximum(index, 0), axis=self.axis, mode="clip")
        if not isinstance(boundary, str):
            block[self._where(places < 0)] = boundary
        return block

    def _picked(self, known: Any) -> tuple[Any, ...]:
        return (slice(None),) * (self.axis or 0) + (known,)

    def _where(self, mask: Any) -> tuple[Any, ...]:
        return (slice(None),) * (self.axis or 0) + (mask,)


def apply_in_place(
    kernel: Any,
    args: tuple[Any, ...],
    options: Options,
    pool: Pool,
    timeout: float | None,
    progress: Asked = None,
) -> None:
    """Run a kernel on zarr arrays; those that it writes have a new version when it returns."""
    config.refuse_given(
        "parallel_apply on zarr arrays",
        "each task has a region of whole chunks, and a failure leaves the arrays as they were",
        chunksize=options.chunksize, retries=options.retries or None, debug=options.debug or None,
    )  # fmt: skip
    call, sources, _ = specify("parallel_apply", kernel, args, options.axis, wrap, {})
    paths = [_path(source.array.array) for source in sources]
    readings = _readings(call, sources, paths)
    written = [i for i, slot in enumerate(call.slots) if slot.written]
    for i in written:
        _check_writeable(sources[i].array.array)
    cut = _regions(call, sources, written)
    with new_versions([paths[i] for i in written]) as targets:
        axes = [call.slots[i].axis or 0 for i in written]
        tasks = [
            (call, readings, list(zip(targets, axes, strict=True)), start, length)
            for start, length in cut
        ]
        if progress is None:
            _run_all(pool, tasks, timeout)
            return
        with Meter(progress, len(tasks), "region", "zarr") as meter:
            _run_all(pool, tasks, timeout, meter)


def results_of_blocks(
    what: str, kernel: Any, args: tuple[Any, ...], axis: int, pool: Pool
) -> BlockResults:
    """What a kernel returns for each region, of the same size whoever runs it."""
    call, sources, _ = specify(what, kernel, args, axis, wrap)
    readings = _readings(call, sources, [_path(source.array.array) for source in sources])
    cut = _regions(call, sources, range(len(sources)))
    results = _run_all(pool, [(call, readings, [], *place) for place in cut], None)
    return BlockResults(call, tuple(length for _, length in cut), results).of_chunks()


def _readings(call: BlockCall, sources: Sequence[Source], paths: Sequence[Path]) -> list[Reading]:
    return [
        Reading(str(path), slot.axis, source.halo)
        for slot, source, path in zip(call.slots, sources, paths, strict=True)
        if slot.fetched
    ]


def _run_region(
    call: BlockCall,
    readings: Sequence[Reading],
    targets: Sequence[tuple[str, int]],
    start: int,
    length: int,
) -> Any:
    """Run one region, in a worker; what a kernel that writes nothing has returned."""
    results = call(start, length, *(reading.block(start, length) for reading in readings))
    if not targets:
        return results
    for (path, axis), content in zip(targets, results, strict=True):
        where = (slice(None),) * axis + (slice(start, start + length),)
        zarr.open_array(path, mode="r+")[where] = content
    return None


def _run_all(
    pool: Pool,
    tasks: Sequence[tuple[Any, ...]],
    timeout: float | None,
    meter: Meter | None = None,
) -> list[Any]:
    """What all tasks return; none of them runs or will run when it raises."""
    seconds = config.timeout(timeout)
    futures = [pool.submit(_run_region, *task) for task in tasks]
    try:
        for future in _as_done(futures, seconds):
            future.result()
            if meter is not None:
                meter.add(1)
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()
        # What one writes that runs still is nobody's, and would be left behind.
        wait(futures, PATIENCE)


def _as_done(futures: Sequence[Future[Any]], timeout: float | None) -> Iterator[Future[Any]]:
    """The futures in the order in which they are done."""
    done = as_completed(futures, timeout)
    while True:
        try:
            yield next(done)
        except StopIteration:
            return
        except TimeoutError:
            left = sum(not future.done() for future in futures)
            raise KernelTimeoutError(
                f"{left} of {len(futures)} regions were not done after {timeout} s; the arrays "
                "read as before",
                [],
            ) from None


def _regions(
    call: BlockCall, sources: Sequence[Source], aligned: Sequence[int] | range
) -> list[tuple[int, int]]:
    """Starts and lengths of what tasks do: whole chunks or shards of all that is aligned to."""
    split = [
        (slot, source)
        for i, (slot, source) in enumerate(zip(call.slots, sources, strict=True))
        if slot.axis is not None and i in aligned
    ]
    # Of one that is only seen with a halo, where nothing else is.
    own = [pair for pair in split if pair[1].halo is None] or split
    cut = [(slot, source.array.array) for slot, source in own]
    units = [(array.shards or array.chunks)[slot.axis] for slot, array in cut]
    unit = math.lcm(*units)
    slot, _ = cut[0]
    size = slot.shape[slot.axis or 0]
    row = max(_bytes_of_row(slot) for slot, _ in cut)
    length = max(1, REGION // max(1, unit * row)) * unit
    lengths = [min(length, size - start) for start in range(0, size, length)]
    return list(zip(accumulate(lengths[:-1], initial=0), lengths, strict=False))


def _bytes_of_row(slot: Slot) -> int:
    return math.prod(slot.block_shape(1)) * slot.dtype.itemsize


def _path(array: Any) -> Path:
    """Where a zarr array is on the file system.

    Raises
    ------
    TypeError
        If it is elsewhere.
    """
    root = getattr(array.store, "root", None)
    if not isinstance(array.store, zarr.storage.LocalStore) or root is None:
        raise TypeError(
            f"the zarr array {array.name or ''} is in a {type(array.store).__name__}: only on a "
            "file system can a new version take its place in one step. Write into another array, "
            "dask.array.to_zarr(sc.applied(kernel, dask.array.from_zarr(x)), other); keep it "
            "in icechunk, whose commit is such a step, and write there; or copy it in, "
            "sc.SharedArray(x[...])"
        )
    return _real(array)


def _real(array: Any) -> Path:
    """Where it is behind symbolic links, which are to go on pointing there."""
    return Path(array.store.root, array.path).resolve()


def _check_writeable(array: Any) -> None:
    if array.read_only:
        raise ReadOnlyError(
            f"the zarr array {array.name or ''} was opened to be read, mode='r', and the kernel "
            "writes to it: open it with mode='r+', or pass sc.read(x)"
        )

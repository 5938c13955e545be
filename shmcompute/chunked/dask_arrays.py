"""Calls on Dask's arrays as graphs of tasks: an array of which blocks are written is a new one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.layers import ArrayValuesDep

from shmcompute.chunked.block_call import BlockCall, BlockResults, Slot
from shmcompute.chunked.specify import Source, depth_of, specify
from shmcompute.chunking import Halo, ends_of

ALIKE = {"edge": "nearest", "symmetric": "reflect", "wrap": "periodic"}  # NumPy's words, and Dask's

LITTLE = 1 << 20  # bytes of kernels that a graph may have in each task


class DaskArray:
    """A Dask array as `specify` looks at it."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self.dtype: np.dtype[Any] = array.dtype
        self.edges: tuple[tuple[int, ...], ...] = array.chunks
        # Not its name: two that are to be written may be one expression, `empty_like(x)`.
        self.key = id(array)


def wrap(value: Any) -> DaskArray | None:
    """A Dask array, or the one that an xarray DataArray holds; None for all else."""
    if not isinstance(value, da.Array) and type(value).__module__.partition(".")[0] == "xarray":
        value = getattr(value, "data", value)
    return DaskArray(value) if isinstance(value, da.Array) else None


def apply_lazily(kernel: Any, args: tuple[Any, ...], axis: Any, options: dict[str, Any]) -> Any:
    """The arrays that `applied` returns."""
    call, sources, lengths = specify("applied", kernel, args, axis, wrap, options)
    blocks = [_blocks(*pair, lengths) for pair in zip(call.slots, sources, strict=True)]
    written = [
        (slot, source.array.array)
        for slot, source in zip(call.slots, sources, strict=True)
        if slot.written
    ]
    results = _graph(call, lengths, blocks, written)
    return results[0] if len(results) == 1 else tuple(results)


def results_of_blocks(
    what: str, kernel: Any, args: tuple[Any, ...], axis: int, _: Any = None
) -> BlockResults:
    """What a kernel returns for each block, computed now by the scheduler that Dask would take."""
    call, sources, lengths = specify(what, kernel, args, axis, wrap)
    blocks = [_blocks(*pair, lengths) for pair in zip(call.slots, sources, strict=True)]
    given, _ = _given(call, lengths, blocks)
    rows = da.blockwise(
        _run_reducing, (0,), *given, call=_sent(call, len(lengths)), dtype=object,
        meta=np.empty(0, object), align_arrays=False, adjust_chunks={0: 1},
    )  # fmt: skip
    return BlockResults(call, lengths, [row[0] for row in rows.compute()]).of_chunks()


def _graph(
    call: BlockCall, lengths: Sequence[int], blocks: Sequence[Any], written: Sequence[Any]
) -> list[Any]:
    """The arrays that the call writes."""
    given, number = _given(call, lengths, blocks)
    sent = _sent(call, len(lengths))
    if len(written) == 1:
        return [_blockwise(_run_one, written[0], number, lengths, given, call=sent)]
    meta = np.empty(0, object)
    several = da.blockwise(
        _run, (0,), *given, call=sent, dtype=object, meta=meta, align_arrays=False,
        adjust_chunks={0: tuple(lengths)},
    )  # fmt: skip
    return [
        _blockwise(_pick, one, 1, lengths, [several, (0,)], which=which)
        for which, one in enumerate(written)
    ]


def _given(call: BlockCall, lengths: Sequence[int], blocks: Sequence[Any]) -> tuple[list[Any], int]:
    """What `blockwise` gets for a call, and how many names of axes are taken.

    Axis 0 is the one that is cut; the others, of one block each, have names of their own.
    """
    starts = accumulate(lengths[:-1], initial=0)
    places = {(i,): pair for i, pair in enumerate(zip(starts, lengths, strict=False))}
    given: list[Any] = [ArrayValuesDep(((1,) * len(lengths),), places), (0,)]
    number = 1
    for block, slot in zip(blocks, call.slots, strict=True):
        if slot.fetched:
            index = [0 if along == slot.axis else number + along for along in range(block.ndim)]
            number += block.ndim
            given += [block, tuple(index)]
    return given, number


def _blockwise(
    function: Any,
    written: tuple[Slot, Any],
    number: int,
    lengths: Sequence[int],
    given: Sequence[Any],
    **more: Any,
) -> Any:
    """An array like one that is written, of which the function makes each block."""
    slot, array = written
    index = tuple(0 if along == slot.axis else number + along for along in range(array.ndim))
    others = {number + i: array.shape[i] for i in range(array.ndim) if i != slot.axis}
    return da.blockwise(
        function,
        index,
        *given,
        **more,
        new_axes=others,
        adjust_chunks={0: tuple(lengths)},
        align_arrays=False,
        dtype=array.dtype,
        meta=_meta(array),
    )


def _sent(call: BlockCall, tasks: int) -> Any:
    """The call as tasks refer to it: sent once to each worker, where that pays and can be said.

    What is sent so is a task of its own, which all others wait for. Array expressions lose it.
    """
    if hasattr(da.Array, "expr") or tasks * sum(map(len, call.kernels)) < LITTLE:
        return _Plain(call)
    return dask.delayed(call, pure=True, traverse=False)


class _Plain:
    """A call: in dataclasses Dask looks for arrays of its own, of which there are none."""

    def __init__(self, call: BlockCall) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __dask_tokenize__(self) -> tuple[str, str]:
        return self._call.__dask_tokenize__()


def _run(place: tuple[int, int], *blocks: Any, call: Any) -> Any:
    return call(*place, *map(_only, blocks))


def _run_one(place: tuple[int, int], *blocks: Any, call: Any) -> Any:
    return _run(place, *blocks, call=call)[0]


def _run_reducing(place: tuple[int, int], *blocks: Any, call: Any) -> Any:
    row = np.empty(1, object)
    row[0] = (call(*place, *map(_only, blocks)),)  # in a tuple: NumPy is not to look into it
    return row


def _pick(arrays: tuple[Any, ...], which: int) -> Any:
    return arrays[which]


def _only(block: Any) -> Any:
    """A block: lists of one, along axes that are not cut, stand around it."""
    while isinstance(block, list):
        (block,) = block
    return block


def _blocks(slot: Slot, source: Source, lengths: Sequence[int]) -> Any:
    """The array whose blocks tasks see in a slot."""
    array = source.array.array
    if slot.axis is None:
        return _one_block(array)
    if source.halo is None:
        return array
    return with_halo(array, slot.axis, source.halo, lengths)


def with_halo(array: Any, axis: int, halo: Halo, lengths: Sequence[int]) -> Any:
    """An array whose blocks are those of these lengths, and what a halo adds to each."""
    before, after = depth_of(halo)
    word = ALIKE.get(halo.boundary) if before == after else None
    if word is not None and min(lengths) >= before > 0:
        own = _rechunked(array, axis, lengths)
        return da.overlap.overlap(own, {axis: before}, {axis: word}, allow_rechunk=False)
    first, own, last = _ends(array, axis, halo, sum(lengths))
    own = _rechunked(own, axis, lengths)
    if not before + after:
        return own
    deepest = max(before, after)
    if len(lengths) > 1 and min(lengths) < deepest:
        parts = [part for part in (first, own, last) if part.shape[axis]]
        return _windows(da.concatenate(parts, axis), axis, lengths, before + after)
    # Blocks of their own, which are dropped again; `overlap` wants them no shorter than the depth.
    joined = da.overlap.overlap(
        da.concatenate(
            [_at_least(first, axis, deepest, 0), own, _at_least(last, axis, deepest, 1)], axis
        ),
        depth={axis: (before, after)},
        boundary={axis: "none"},
        allow_rechunk=False,
    )
    dropped = joined.chunks[axis][0], joined.chunks[axis][-1]
    inner = slice(dropped[0], joined.shape[axis] - dropped[1])
    return joined[(slice(None),) * axis + (inner,)]


def _ends(array: Any, axis: int, halo: Halo, size: int) -> tuple[Any, Any, Any]:
    """What comes before the array's own elements, these, and what comes after."""
    (before, after), along = depth_of(halo), (slice(None),) * axis
    if halo.boundary is None:
        cuts = slice(0, before), slice(before, before + size), slice(before + size, None)
        first, own, last = (array[(*along, cut)] for cut in cuts)
        return first, own, last
    if not isinstance(halo.boundary, str):
        value = np.array(halo.boundary).astype(array.dtype)
        shapes = (
            [*array.shape[:axis], depth, *array.shape[axis + 1 :]] for depth in (before, after)
        )
        first, last = (da.full(shape, value, dtype=array.dtype, chunks=-1) for shape in shapes)
        return first, array, last
    first, last = (_picked(array, axis, at) for at in ends_of(size, (before, after), halo.boundary))
    return first, array, last


def _picked(array: Any, axis: int, places: Any) -> Any:
    """These elements along an axis, some of them perhaps more than once, as one block."""
    along = (slice(None),) * axis
    low, high = (int(places.min()), int(places.max()) + 1) if places.size else (0, 0)
    part = array[(*along, slice(low, high))]
    lengths = tuple((size,) for size in part.shape)
    chunks = (*lengths[:axis], (places.size,), *lengths[axis + 1 :])
    return _one_block(part).map_blocks(
        np.take, places - low, axis=axis, chunks=chunks, dtype=array.dtype, meta=_meta(array)
    )


def _at_least(part: Any, axis: int, length: int, which: int) -> Any:
    """A part as one block, made so long on its outer side by what nobody sees."""
    missing = length - part.shape[axis]
    if not missing:
        return _one_block(part)
    shape = [*part.shape[:axis], missing, *part.shape[axis + 1 :]]
    more = da.zeros(shape, dtype=part.dtype, chunks=-1)
    return _one_block(da.concatenate([part, more] if which else [more, part], axis))


def _one_block(array: Any) -> Any:
    return array.rechunk(tuple((size,) for size in array.shape))


def _meta(array: Any) -> Any:
    return np.empty((0,) * array.ndim, array.dtype)


def _windows(array: Any, axis: int, lengths: Sequence[int], margin: int) -> Any:
    """The same, where a halo reaches beyond the next block."""
    starts = accumulate(lengths[:-1], initial=0)
    edges = [(start, start + length + margin) for start, length in zip(starts, lengths)]  # noqa: B905
    seen = [array[(slice(None),) * axis + (slice(*edge),)] for edge in edges]
    return da.concatenate(
        [_rechunked(one, axis, (stop - start,)) for one, (start, stop) in zip(seen, edges)],  # noqa: B905
        axis,
    )


def _rechunked(array: Any, axis: int, lengths: Sequence[int]) -> Any:
    if array.chunks[axis] == tuple(lengths):
        return array
    return array.rechunk({axis: tuple(lengths)})

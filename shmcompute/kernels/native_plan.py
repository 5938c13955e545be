"""A plan as machine code reads it: words that say where its kernels, arguments and chunks are.

All words are 64 bits wide. Machine code sees only addresses, so each object here keeps alive what
its words point to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.arrays import SharedArray
from shmcompute.chunking import (
    FRAME_HEAD,
    Arguments,
    Bound,
    Chunk,
    ChunkCall,
    ChunkNumber,
    ChunkStart,
    ChunkStop,
    Constant,
    OutputRow,
    PaddedPart,
    Part,
    Scalar,
    ScratchRow,
    SweepNumber,
    WholeArray,
    words_in_frame,
)
from shmcompute.kernels import trampoline
from shmcompute.kernels.trampoline import Source
from shmcompute.typing import Array


@dataclass(frozen=True, eq=False)
class NativeCall:
    """One kernel's call: a trampoline, the block that it reads, and what must live as long."""

    trampoline: int
    block: Array
    frame_words: int  # of the arrays that the frame tells
    kept: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class NativePlan:
    """What jitted code runs: the calls, in turn, on each chunk."""

    words: Array
    calls: Sequence[NativeCall]
    state: Array | None = None  # what else they refer to

    @cached_property
    def address(self) -> int:
        """Where the words are."""
        return self.words.ctypes.data


def make_native_plan(
    calls: Sequence[NativeCall | None], edges: Sequence[int] = ()
) -> NativePlan | None:
    """The native plan of these calls, one for each link; None if one of them needs Python.

    Its words: the number of links; of each link the addresses of its trampoline and its block, and
    at which byte of the frame its arrays begin; then the edges of the chunks, if a frame's rule
    does not tell them.
    """
    native = [call for call in calls if call is not None]
    if len(native) < len(calls):
        return None
    words = np.array([len(native), *words_of_calls(native), *edges], np.int64)
    return NativePlan(words, native)


def words_of_calls(calls: Sequence[NativeCall]) -> Iterator[int]:
    """Of each its trampoline, its block, and at which byte of the frame its arrays begin."""
    frames = accumulate((8 * call.frame_words for call in calls), initial=FRAME_HEAD)
    for call, frame in zip(calls, frames, strict=False):
        yield from (call.trampoline, call.block.ctypes.data, frame)


def native_call(
    dispatcher: Dispatcher, arguments: Arguments, chunks: Sequence[Chunk]
) -> NativeCall | None:
    """The call of a jitted kernel without Python.

    None if chunks are of several types, if no version was compiled for just these types, if it
    returns something, which is to be looked at, or if an argument is neither array nor number.
    """
    types = {tuple(map(numba.typeof, sample)) for sample in arguments.samples(chunks)}
    described = [_describe(argument, chunks) for argument in arguments.bound]
    native = [description for description in described if description is not None]
    if len(types) != 1 or len(native) < len(described):
        return None
    argument_types = types.pop()
    version = trampoline.address_of(dispatcher, argument_types)
    if version is None or version[0].signature.return_type != numba.types.none:
        return None
    compiled, code = version
    words = chain.from_iterable(one.words for one in native)
    return NativeCall(
        trampoline.make_trampoline(
            compiled.signature.return_type, argument_types, tuple(one.source for one in native)
        ),
        np.array([code, *words], np.int64),
        sum(words_in_frame(view.ndim) for view in arguments.views()),
        kept=(compiled, arguments.detached(), native),
    )


class _Described(NamedTuple):
    """Where a trampoline finds an argument, and the argument's words in the block."""

    source: Source
    words: Sequence[int] = ()
    kept: Any = None  # what these point to, beside what the argument keeps


def _describe(argument: Bound, chunks: Sequence[Chunk]) -> _Described | None:
    if type(argument) in _OF_CHUNKS:
        return _Described((_OF_CHUNKS[type(argument)], 0))
    match argument:
        case Scalar(index):
            return _Described(("value", index))
        case PaddedPart():
            return _describe_padded(argument, chunks)
        case Part(view, axis, _, 0):
            return _Described(("part", axis), [view.itemsize])
        case Part(view, axis, _, margin):
            return _Described(("window", axis), [margin, view.itemsize])
        case WholeArray(view):
            return _Described(("whole", 0), [view.itemsize])
        case OutputRow(view):
            return _Described(("row", 0), [view.itemsize])
        case ScratchRow():
            row = argument.at(ChunkCall(0, 0))
            return _Described(("scratch", 0), trampoline.scratch_words(argument.rows, row))
        case Constant(value):
            return _describe_constant(value)
    return None


def _describe_padded(part: PaddedPart, chunks: Sequence[Chunk]) -> _Described | None:
    from shmcompute.kernels import padding  # noqa: PLC0415  # 6 ms, for few programs

    pad = padding.address_of_pad()
    if pad is None:
        return None
    words, kept = padding.padding_words(part, chunks)
    return _Described(
        ("padded", part.axis), [part.view.itemsize, pad, *words], (kept, part.ends, part.fill)
    )


def _describe_constant(value: Any) -> _Described | None:
    array = value.array if isinstance(value, SharedArray) else value
    if type(array) is np.ndarray:
        return _Described(("fixed", 0), trampoline.fixed_words(array))
    packed = trampoline.scalar_bytes(value)
    if packed is None:
        return None
    return _Described(("scalar", 0), np.frombuffer(packed, np.int64).tolist())


_OF_CHUNKS: dict[type[Bound], str] = {
    ChunkStart: "start",
    ChunkStop: "stop",
    ChunkNumber: "number",
    SweepNumber: "number",
}

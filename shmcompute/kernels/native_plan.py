"""A plan as machine code reads it: words that say where its kernels, arguments and chunks are.

All words are 64 bits wide. Machine code sees only addresses, so each object here keeps alive what
its words point to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
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
    Block,
    Bound,
    Chunk,
    ChunkCall,
    ChunkNumber,
    ChunkStart,
    ChunkStop,
    Constant,
    Cut,
    OutputRow,
    PaddedBlock,
    PaddedPart,
    Part,
    Scalar,
    ScratchRow,
    SweepNumber,
    WholeArray,
    words_in_frame,
)
from shmcompute.kernels import trampoline
from shmcompute.kernels.trampoline import Source, Types
from shmcompute.typing import Array


@dataclass(frozen=True, eq=False)
class NativeCall:
    """One kernel's call: a trampoline, the block that it reads, and what must live as long."""

    trampoline: int
    block: Array
    frame_words: int  # of the arrays that the frame tells
    kept: tuple[Any, ...]


@dataclass(frozen=True)
class NeedsPython:
    """Why machine code can't make a kernel's call."""

    reason: str  # a sentence's end, behind the kernel's name


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
    calls: Sequence[NativeCall | NeedsPython], edges: Sequence[int] = ()
) -> NativePlan | None:
    """The native plan of these calls, one for each link; None if one of them needs Python.

    Its words: the number of links; of each link the addresses of its trampoline and its block, and
    at which byte of the frame its arrays begin; then the edges of the chunks, if a frame's rule
    does not tell them.
    """
    native = [call for call in calls if isinstance(call, NativeCall)]
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
    dispatcher: Dispatcher,
    arguments: Arguments,
    chunks: Sequence[Chunk],
    types: Set[Types],
    held: int = 0,
) -> NativeCall | NeedsPython:
    """The call of a jitted kernel without Python, with arguments of these types in its chunks.

    The first `held` arguments are its partial's. That is refused if chunks are of several types, if
    no version was compiled for just these types, if it returns something, which is to be looked at,
    or if an argument is neither array nor number.
    """
    described = [_describe(argument, chunks) for argument in arguments.bound]
    native = [description for description in described if isinstance(description, _Described)]
    if len(native) < len(described):
        return NeedsPython(_not_passed(described, held))
    if len(types) != 1:
        return NeedsPython(_several(types, held))
    (argument_types,) = types
    version = trampoline.address_of(dispatcher, argument_types)
    if isinstance(version, str):
        return NeedsPython(version)
    compiled, code = version
    returned = compiled.signature.return_type
    if returned != numba.types.none:
        return NeedsPython(f"it returns {returned}, of which Python looks whether it was given it")
    words = chain.from_iterable(one.words for one in native)
    return NativeCall(
        trampoline.make_trampoline(
            compiled.signature.return_type,
            argument_types,
            tuple(one.source for one in native),
            axes=len(arguments.lengths),
        ),
        np.array([code, *words], np.int64),
        sum(words_in_frame(view.ndim) for view in arguments.views()),
        kept=(compiled, native),
    )


def _not_passed(described: Sequence[_Described | str], held: int) -> str:
    """Why machine code does not pass one of the arguments."""
    i, reason = next((i, one) for i, one in enumerate(described) if isinstance(one, str))
    return f"{_place(i, held)} is {reason}, which machine code does not pass"


def _several(types: Set[Types], held: int) -> str:
    """That chunks are of several types, and which argument's they are."""
    for i, kinds in enumerate(zip(*types, strict=True)):
        if len(set(kinds)) > 1:
            listed = ", ".join(sorted(set(map(str, kinds))))
            return f"{_place(i, held)} is of several types in its chunks: {listed}"
    return "it has no chunks"


def _place(position: int, held: int) -> str:
    if position < held:
        return f"argument {position} of its partial"
    return f"argument {position - held}"


class _Described(NamedTuple):
    """Where a trampoline finds an argument, and the argument's words in the block."""

    source: Source
    words: Sequence[int] = ()
    kept: Any = None  # what these point to


def _describe(argument: Bound, chunks: Sequence[Chunk]) -> _Described | str:
    """How machine code passes an argument; or what it is, if Python has to."""
    if isinstance(argument, ChunkStart) and argument.base is not None:
        return _Described(("start_from", argument.base))
    if type(argument) in _OF_CHUNKS:
        return _Described((_OF_CHUNKS[type(argument)], 0))
    match argument:
        case Scalar(index):
            return _Described(("value", index))
        case Part() | Block():
            return _describe_cut(argument, chunks)
        case WholeArray(view):
            return _Described(("whole", 0), [view.itemsize])
        case OutputRow(view):
            return _Described(("row", 0), [view.itemsize])
        case ScratchRow():
            row = argument.at(ChunkCall(0, 0))
            rows = argument.rows
            return _Described(("scratch", 0), trampoline.scratch_words(rows, row), rows)
        case Constant(value):
            return _describe_constant(value)
    return "a random generator, made for each chunk"


def _describe_cut(argument: Cut, chunks: Sequence[Chunk]) -> _Described | str:
    match argument:
        case PaddedPart():
            return _describe_padded(argument, chunks)
        case PaddedBlock():
            return _describe_padded_block(argument, chunks)
        case Part(view, axis, _, margin):
            axes, margins = (axis,), [margin]
        case Block(view, axes, _, margins):
            pass
    if any(margins):
        return _Described(("window", axes), [*margins, view.itemsize])
    return _Described(("part", axes), [view.itemsize])


def _describe_padded(part: PaddedPart, chunks: Sequence[Chunk]) -> _Described | str:
    from shmcompute.kernels import padding  # noqa: PLC0415  # 6 ms, for few programs

    pad = padding.address_of_pad()
    if pad is None:
        return "a halo beyond the ends, whose machine code is not to be had"
    words, kept = padding.padding_words(part, chunks)
    return _Described(
        ("padded", 0), [part.view.itemsize, pad, *words], (kept, part.ends, part.fill)
    )


def _describe_padded_block(block: PaddedBlock, chunks: Sequence[Any]) -> _Described | str:
    from shmcompute.kernels import padding_blocks  # noqa: PLC0415  # for few programs

    pad = padding_blocks.address_of_pad()
    if pad is None:
        return "a halo beyond the ends, whose machine code is not to be had"
    words, kept = padding_blocks.padding_words(block, chunks)
    return _Described(
        ("padded", 0), [block.view.itemsize, pad, *words], (kept, block.ends, block.fill)
    )


def _describe_constant(value: Any) -> _Described | str:
    array = value.array if isinstance(value, SharedArray) else value
    if type(array) is np.ndarray:
        return _Described(("fixed", 0), trampoline.fixed_words(array), array)
    packed = trampoline.scalar_bytes(value)
    if packed is None:
        return f"{_kind(value)} (Numba's type {numba.typeof(value)})"
    return _Described(("scalar", 0), np.frombuffer(packed, np.int64).tolist())


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


_OF_CHUNKS: dict[type[Bound], str] = {
    ChunkStart: "start",
    ChunkStop: "stop",
    ChunkNumber: "number",
    SweepNumber: "number",
}

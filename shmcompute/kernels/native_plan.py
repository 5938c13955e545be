"""A plan as machine code sees it: words that say where its kernels, arguments and chunks stand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.chunking import Arguments, Bound, Chunk, ChunkStart, Constant, Part, Scalar
from shmcompute.kernels import trampoline
from shmcompute.kernels.trampoline import Way
from shmcompute.typing import Array


@dataclass(frozen=True, eq=False)
class NativeCall:
    """One kernel's call: a trampoline, the block that it reads, and what must live as long."""

    trampoline: int
    block: Array
    kept: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class NativePlan:
    """What jitted code runs: the calls, in turn, on each chunk."""

    words: Array
    calls: Sequence[NativeCall]
    address: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", _address(self.words))


def make_native_plan(
    calls: Sequence[NativeCall], chunks: Sequence[Chunk], links: int
) -> NativePlan | None:
    """The frame of these calls; None unless there is one for each link.

    Its words: how many chunks, how many links; of each link its trampoline and its block; the edges
    of the chunks, which are contiguous.
    """
    if len(calls) != links or not chunks:
        return None
    told = itertools.chain.from_iterable((call.trampoline, _address(call.block)) for call in calls)
    edges = [chunks[0][0], *(stop for _, stop in chunks)]
    return NativePlan(np.array([len(chunks), links, *told, *edges], np.int64), calls)


def native_call(
    dispatcher: Dispatcher, arguments: Arguments, chunks: Sequence[Chunk]
) -> NativeCall | None:
    """The call of a jitted kernel without Python.

    None if chunks are of several types, if no version was compiled for just these types, or if an
    argument is neither array nor number.
    """
    kinds = {tuple(map(_typeof, sample)) for sample in arguments.samples(chunks)}
    if len(kinds) != 1:
        return None
    argument_types = kinds.pop()
    ways = [_way(argument) for argument in arguments.bound]
    if None in ways or None in argument_types:
        return None
    found = trampoline.address_of(dispatcher, argument_types)
    if found is None:
        return None
    compiled, address = found
    code = trampoline.make_trampoline(
        compiled.signature.return_type, argument_types, tuple(way for way, _ in filter(None, ways))
    )
    words = itertools.chain.from_iterable(part for _, part in filter(None, ways))
    block = np.array([address, *words], np.int64)
    return NativeCall(code, block, (compiled, arguments))


def _typeof(value: Any) -> Any:
    try:
        return numba.typeof(value)
    except ValueError:
        return None


def _way(argument: Bound) -> tuple[Way, list[int]] | None:
    """How an argument comes, and its words in the block."""
    match argument:
        case ChunkStart():
            return ("start", 0), []
        case Scalar(number):
            return ("value", number), []
        case Part(view, axis):
            return ("part", axis), trampoline.array_words(view)
        case Constant(value) if type(value) is np.ndarray:
            return ("same", 0), trampoline.array_words(value)
        case Constant(value) if (laid := trampoline.scalar_bytes(value)) is not None:
            return ("scalar", 0), np.frombuffer(laid, np.int64).tolist()
    return None


def _address(words: Array) -> int:
    address: int = words.__array_interface__["data"][0]
    return address

"""`specify`: what a call on chunked arrays is, from shapes, dtypes and block edges alone.

It checks all that can be known before there is any data, and compiles for just the types that
blocks will have.

The file is long because each thing that can be wrong with such a call has a message of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from shmcompute.arrays import SharedArray
from shmcompute.backends.processes import dump_kernel
from shmcompute.chunked.block_call import BlockCall, ReducingCall, Seen, Slot
from shmcompute.chunking import (
    ARRAY_MARKERS,
    ChunkMarker,
    Halo,
    Read,
    Shared,
    Split,
    Whole,
    Write,
    is_array_like,
    kind_of,
    offset,
)
from shmcompute.default_pools import default_pool
from shmcompute.plans import Options, build_plan, calls_of


class Chunked(Protocol):
    """An array that lies in blocks."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def edges(self) -> tuple[tuple[int, ...], ...]:
        """The lengths of its blocks along each axis."""

    @property
    def key(self) -> Any:
        """Equal for what is the same array."""


class Source(NamedTuple):
    """Where the blocks of a slot come from."""

    array: Any  # a Chunked
    halo: Halo | None = None  # with the depth as a pair


class Specified(NamedTuple):
    """A call, the array of each slot, and the lengths of its blocks."""

    call: BlockCall
    sources: tuple[Source, ...]
    lengths: tuple[int, ...]


def specify(
    what: str,
    kernel: Any,
    args: tuple[Any, ...],
    axis: Any,
    wrap: Any,
    options: dict[str, Any] | None = None,
) -> Specified:
    """The call of a kernel on chunked arrays, checked and compiled.

    Parameters
    ----------
    what : str
        What messages call the function that was called.
    wrap : callable
        Returns a `Chunked` for an array of the kind that is taken, None for all else.
    options : dict, optional
        Of a call that writes; without them it is one whose kernel returns a result of each block.

    Raises
    ------
    TypeError, ValueError, KernelTypeError, KernelSerializationError
    """
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"{what}: axis: expected a whole number, got {axis!r}")
    slots = _Slots(what, int(axis), wrap, writes=options is not None)
    calls = calls_of(kernel, args)
    links = tuple(slots.link(given) for _, *given in calls)
    lengths = slots.lengths()
    found, sources = slots.made()
    functions = [function for function, *_ in calls]
    if options is None:
        call: BlockCall = ReducingCall((), links, found)
        kernels = tuple(map(dump_kernel, functions))
    else:
        call = BlockCall((), links, found, options)
        kernels = tuple(map(dump_kernel, _compiled(call, functions, lengths)))
    return Specified(replace(call, kernels=kernels, blocks=len(lengths)), sources, lengths)


def _compiled(call: BlockCall, kernels: list[Any], lengths: tuple[int, ...]) -> list[Any]:
    """The kernels, compiled for the types of all blocks, as threads call them."""
    # A block's Numba type changes where its length is 1, and nowhere else.
    typical = {length == 1: length for length in lengths if length} or {False: 0}
    for length in typical.values():
        calls = call.calls(kernels, 0, call.samples(length))
        built = build_plan(calls, Options(**call.options), default_pool("threads").running)
        kernels = [link.kernel.function for link in built.links]
    return kernels


class _Slots:
    """Collects the arrays among arguments; each array, seen in one way, is one slot."""

    def __init__(self, what: str, axis: int, wrap: Any, *, writes: bool) -> None:
        self._what, self._axis, self._wrap, self._writes = what, axis, wrap, writes
        self._numbers: dict[Any, int] = {}
        self._slots: list[Slot] = []
        self._sources: list[Source] = []
        self._names: list[str] = []  # what messages call them
        self._earlier: frozenset[int] = frozenset()  # what earlier links have written

    def _each(self) -> Iterator[tuple[Slot, Source, str]]:
        """Each slot, where its blocks come from, and what messages call it."""
        return zip(self._slots, self._sources, self._names, strict=True)

    def link(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments of the next kernel, as a `BlockCall` has them."""
        found = tuple(self.argument(position, arg) for position, arg in enumerate(args))
        self._earlier = frozenset(i for i, slot in enumerate(self._slots) if slot.written)
        return found

    def argument(self, position: int, arg: Any) -> Any:
        """The argument of a kernel, as a `BlockCall` has it."""
        marked = isinstance(arg, ARRAY_MARKERS)
        array = self._wrap(arg.value if marked else arg)
        if array is None:
            return self._other(position, arg)
        if isinstance(arg, Shared):
            raise TypeError(
                f"{self._what}: argument {position} is shared(): blocks lie apart, maybe on "
                "several hosts, so none can be written by all; return a result of each block, and "
                "combine these"
            )
        marker = type(arg) if marked else Split if self._writes else Read
        if not self._writes and marker in (Split, Write):
            raise TypeError(
                f"{self._what}: argument {position} is to be written, but a reduction of chunked "
                "arrays only reads them: pass sc.read(x), or write by sc.applied"
            )
        if marker is Whole:
            return Seen(self._slot(position, array, None, Source(array)), Whole)
        axis = self._own_axis(position, array, arg.axis if marked else None)
        if marker is Halo:
            return self._halo(position, array, axis, arg)
        slot = self._slot(position, array, axis, Source(array))
        self._access(slot, marker)
        return Seen(slot, marker)

    def _access(self, number: int, marker: type[Any]) -> None:
        """Note that a kernel sees a slot so; what a link writes first need not be fetched."""
        slot = self._slots[number]
        fetched = slot.fetched or not (number in self._earlier or marker is Write)
        written = slot.written or marker in (Split, Write)
        self._slots[number] = replace(slot, fetched=fetched, written=written)

    def _halo(self, position: int, array: Any, axis: int, marker: Halo) -> Seen:
        depth = depth_of(marker)
        source = Source(array, Halo(None, depth, axis, marker.boundary))
        return Seen(self._slot(position, array, axis, source, sum(depth)), Halo, depth)

    def _slot(
        self, position: int, array: Any, axis: int | None, source: Source, margin: int = 0
    ) -> int:
        halo = None if source.halo is None else source.halo.key
        key = array.key, axis, halo
        if key not in self._numbers:
            self._numbers[key] = len(self._slots)
            only_read = axis is None or halo is not None
            self._slots.append(Slot(array.dtype, array.shape, axis, only_read, False, margin))
            self._sources.append(source)
            self._names.append(f"argument {position}")
        return self._numbers[key]

    def _own_axis(self, position: int, array: Any, axis: Any) -> int:
        axis = self._axis if axis is None else axis
        if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
            raise TypeError(f"{self._what}: axis: expected a whole number, got {axis!r}")
        if not -len(array.shape) <= axis < len(array.shape):
            raise ValueError(
                f"{self._what}: axis {axis} is out of range for argument {position} of shape "
                f"{array.shape}"
            )
        return int(axis) % len(array.shape)

    def _other(self, position: int, arg: Any) -> Any:
        """An argument that is no chunked array."""
        inner = arg.value if isinstance(arg, ARRAY_MARKERS) else arg
        if isinstance(arg, Whole):
            content = inner.array if isinstance(inner, SharedArray) else inner
            # A copy: it is computed later, and what is asked for now counts.
            is_array = isinstance(content, np.ndarray) or is_array_like(content)
            return Whole(np.array(content)) if is_array else Whole(content)
        if isinstance(inner, (SharedArray, np.ndarray)) or is_array_like(inner):
            kind = "ndarray" if type(inner) is np.ndarray else kind_of(inner)
            raise TypeError(
                f"{self._what}: argument {position} is a plain {kind} of shape "
                f"{getattr(inner, 'shape', '?')} among chunked arrays: pass sc.whole(x) if each "
                "block is to see all of it, else make it chunked as the others are, "
                "dask.array.from_array(x, chunks=...)"
            )
        if (isinstance(arg, ChunkMarker) and arg is not offset) or type(arg).__name__ in _UNKNOWN:
            raise TypeError(
                f"{self._what}: argument {position} is {_name(arg)}, which depends on how one "
                "machine cuts its chunks; blocks of chunked arrays know split, read, write, whole, "
                "halo, offset and scratch"
            )
        return arg

    def lengths(self) -> tuple[int, ...]:
        """The lengths of the blocks, which all arrays must share; everything else is checked."""
        for slot, source, name in self._each():
            self._check_known(name, source.array)
            if slot.axis is not None:
                self._check_one_block(name, source.array, slot.axis)
        self._check_apart()
        cut = self._cut(halos=False) or self._cut(halos=True)
        if not cut:
            raise ValueError(
                f"{self._what}: nothing to split: pass a chunked array without halo, or with "
                "boundary="
            )
        if self._writes and not any(slot.written for slot in self._slots):
            raise ValueError(
                f"{self._what}: nothing is written: at least one chunked array must be passed "
                "unmarked, in split() or, if its old content does not matter, in write(); new ones "
                "are returned for these"
            )
        if len({edges for _, edges in cut}) > 1:
            listed = "; ".join(f"{name} has {_short(edges)}" for name, edges in cut)
            raise ValueError(
                f"{self._what}: arrays must be cut into blocks at the same places along their "
                f"split axis: {listed}. Give them the same blocks: x.rechunk({{axis: "
                "y.chunks[axis]})"
            )
        self._check_halos(lengths := cut[0][1])
        return tuple(lengths)

    def _cut(self, *, halos: bool) -> list[tuple[str, tuple[int, ...]]]:
        """The blocks of arrays that are seen without a halo; or with one, and as many as these."""
        return [
            (name, source.array.edges[slot.axis])
            for slot, source, name in self._each()
            if slot.axis is not None
            and (source.halo is None or (halos and source.halo.boundary is not None))
        ]

    def _check_known(self, name: str, array: Any) -> None:
        if any(np.isnan(size) for sizes in array.edges for size in sizes):
            raise ValueError(
                f"{self._what}: {name} has blocks of unknown sizes (nan): call "
                "x.compute_chunk_sizes() first"
            )

    def _check_one_block(self, name: str, array: Any, axis: int) -> None:
        for other, sizes in enumerate(array.edges):
            if other != axis and len(sizes) > 1:
                raise ValueError(
                    f"{self._what}: {name} (shape {array.shape}) is cut into {len(sizes)} blocks "
                    f"along axis {other}, too; a kernel sees all of an array but along axis "
                    f"{axis}: x.rechunk({{{other}: -1}}), or split it along that axis"
                )

    def _check_apart(self) -> None:
        """Refuse what sees an array that is written otherwise than block by block."""
        written = {source.array.key: name for slot, source, name in self._each() if slot.written}
        for slot, source, name in self._each():
            if not slot.written and source.array.key in written:
                raise ValueError(
                    f"{self._what}: {name} sees more than its block, or along another axis, of "
                    f"the array that is written as {written[source.array.key]}: write into another "
                    "one, sc.write(dask.array.empty_like(x)), or make it several calls"
                )

    def _check_halos(self, lengths: Sequence[int]) -> None:
        for slot, source, name in self._each():
            if source.halo is None or slot.axis is None:
                continue
            extra = slot.margin if source.halo.boundary is None else 0
            length, expected = source.array.shape[slot.axis], sum(lengths) + extra
            if length != expected:
                raise ValueError(
                    f"{self._what}: {name} is seen with a halo of {slot.margin} in all, so it "
                    f"should have {expected} elements along axis {slot.axis}, got {length}"
                    + ("" if extra == 0 else "; boundary= continues one as long as the others")
                )

    def made(self) -> tuple[tuple[Slot, ...], tuple[Source, ...]]:
        """The slots, and where the blocks of each come from."""
        return tuple(self._slots), tuple(self._sources)


def depth_of(halo: Halo) -> tuple[int, int]:
    """How much it adds before and after, of one axis."""
    depth = halo.depth if isinstance(halo.depth, tuple) else (halo.depth, halo.depth)
    before, after = depth
    if not (isinstance(before, int) and isinstance(after, int)):
        raise TypeError(f"halo: depth: expected one for one axis, got {halo.depth!r}")
    return before, after


_UNKNOWN = {"PerChunk": "per_chunk", "Rng": "rng", "OffsetFrom": "offset"}


def _name(arg: Any) -> str:
    return repr(arg) if isinstance(arg, ChunkMarker) else f"sc.{_UNKNOWN[type(arg).__name__]}"


def _short(edges: Sequence[int]) -> str:
    return str(tuple(edges)) if len(edges) <= 6 else f"({', '.join(map(str, edges[:4]))}, ...)"

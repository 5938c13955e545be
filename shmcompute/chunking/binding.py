"""`bind`: what the caller passed (arrays, markers, numbers, anything else) as bound arguments.

There is a function for each marker. What they refuse is refused before anything runs.

The file is long because each marker has a function, and each refusal a message of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, NoReturn

import numpy as np

from shmcompute.arrays import SharedArray, refuse_subclass
from shmcompute.chunking import blocks
from shmcompute.chunking.aliasing import Access, check_chunks, check_shared
from shmcompute.chunking.arguments import Arguments
from shmcompute.chunking.array_likes import UnlentError, is_array_like, is_lazy, kind_of, lent_array
from shmcompute.chunking.bound import (
    Block,
    Bound,
    ChunkGenerator,
    ChunkNumber,
    ChunkStart,
    ChunkStop,
    Constant,
    Cut,
    OutputRow,
    Part,
    Scalar,
    ScratchRow,
    SweepNumber,
    WholeArray,
)
from shmcompute.chunking.generators import Rng, SweptRng, refuse_generators
from shmcompute.chunking.halo import part_with_halo
from shmcompute.chunking.markers import (
    ARRAY_MARKERS,
    ChunkMarker,
    Halo,
    OffsetFrom,
    PerChunk,
    Read,
    Scratch,
    Shared,
    Split,
    Whole,
    Write,
)
from shmcompute.chunking.numbers import VALUES, Number, Values, is_number
from shmcompute.chunking.padded_block import block_with_halo
from shmcompute.chunking.schedule import Chunk
from shmcompute.storage import locate
from shmcompute.typing import Array


class Setting(NamedTuple):
    """What arguments must know of the call that they are of.

    Parameters
    ----------
    axis : int, or tuple of two
        Split axis of arguments that do not name their own.
    shared : bool
        Whether other processes will see the arrays, so that a plain ndarray won't do.
    workers : int
        How many chunks may run at the same time.
    extent : tuple of int, optional
        The range of numbers that is cut into chunks, where no array is.
    link : int
        Which kernel of a chain they are for.
    """

    axis: int | tuple[int, int]
    shared: bool
    workers: int = 1
    extent: Chunk | None = None
    link: int = 0


def bind(args: Sequence[Any], setting: Setting, *, earlier: Values = ()) -> Arguments:
    """Resolve and check the arguments of a call, before anything runs.

    Parameters
    ----------
    args : sequence
        Arrays, markers, numbers and anything else.
    setting : Setting
    earlier : tuple of numbers
        The numbers of earlier kernels of a chain, which stand before this kernel's.

    Raises
    ------
    TypeError
        For a plain ndarray that must be shared, or a marker around something that is no array.
    ValueError
        For nothing to split, unlike lengths, an axis out of range, read-only targets, and arguments
        that overlap what chunks write in another.
    """
    values = [*earlier]
    if isinstance(setting.axis, tuple):
        blocks.check_axes(setting.axis)
    # The two numbers that a range starts with are none of the caller's arguments.
    first = 0 if setting.extent is None else -2
    bound = tuple(
        _bound(position, arg, setting, values) for position, arg in enumerate(args, first)
    )
    if isinstance(setting.axis, tuple):
        length, width = blocks.shape_of_grid(bound)
        arguments = Arguments(bound, length, tuple(values), width)
    else:
        start = 0 if setting.extent is None else setting.extent[0]
        arguments = Arguments(bound, _length(bound, setting), tuple(values), start=start)
    if len(accesses := arguments.accesses()) > 1:
        check_shared([one._replace(position=one.position + first) for one in accesses])
    return arguments


def _length(bound: Sequence[Bound], setting: Setting) -> int:
    """What the split arguments share along their split axes; that of the range where there is."""
    parts = [(position, arg) for position, arg in enumerate(bound) if isinstance(arg, Part)]
    if setting.extent is not None:
        _check_nothing_is_split(parts)
        return max(0, setting.extent[1] - setting.extent[0])
    if not parts:
        _refuse_unlent(bound)
        raise ValueError(
            "nothing to split: pass at least one SharedArray, or a view of one, that is not "
            "whole() or shared(); to run over a range of numbers, sc.parallel_for"
        )
    lengths = {arg.length for _, arg in parts}
    if len(lengths) > 1 or min(lengths) < 0:
        _refuse_lengths(parts)
    return int(lengths.pop())


def _refuse_unlent(bound: Sequence[Bound]) -> None:
    """Raise the TypeError of an array of another library that might have been meant to be split."""
    for position, arg in enumerate(bound):
        if isinstance(arg, Constant) and is_array_like(arg.value):
            raise UnlentError(_unlent(position, arg.value))


def _unlent(position: int, value: Any) -> str:
    lazily = "; or sc.applied(kernel, ...) makes new ones of it, block by block"
    return (
        f"argument {position} is a {kind_of(value)}, which has no memory of its own that chunks "
        "could work on (it must be read, computed or put together first): copy it in, "
        "sc.SharedArray(np.asarray(x)), and what you need of the result back"
        f"{lazily if is_lazy(value) else ''}"
    )


def _refuse_lengths(parts: Sequence[tuple[int, Part]]) -> NoReturn:
    """Raise the ValueError of parts that have not one length, or are shorter than their halo."""
    plain = [part.length for _, part in parts if part.length == part.view.shape[part.axis]]
    listed = [
        f"argument {i} has {part.view.shape[part.axis]} (shape {part.view.shape}, axis {part.axis})"
        for i, part in parts
    ]
    for position, part in parts:
        length = part.view.shape[part.axis]
        if part.length == length or (plain and part.length == plain[0]):
            continue
        expected = f"{plain[0] + part.margin}" if plain else f"at least {part.margin}"
        listed.append(
            f"argument {position} is seen with a halo of {part.margin} in all, so it should have "
            f"{expected}, got {length}; boundary= continues one that is as long as the others"
        )
    raise ValueError(
        f"split arguments must have one length along their split axis: {'; '.join(listed)}"
    )


def _check_nothing_is_split(parts: Sequence[tuple[int, Part]]) -> None:
    if parts:
        position, part = parts[0]
        raise TypeError(
            f"argument {position - 2} (shape {part.view.shape}) would be split, but a parallel_for "
            "splits its range alone: pass sc.whole(x) to read it, sc.shared(x) to write it"
        )


def _bound(position: int, arg: Any, setting: Setting, values: list[Number]) -> Bound:
    argument = _Argument(position, setting)
    if isinstance(arg, (SharedArray, np.ndarray)):
        return argument.part(arg, None, writes=True)
    if (binder := _BINDERS.get(type(arg))) is not None:
        return binder(argument, arg)
    if is_number(arg) and len(values) < VALUES:
        values.append(arg)
        return Scalar(len(values) - 1)
    if type(arg) is OffsetFrom:
        return _start_from(arg, setting, values)
    if type(arg) is SweptRng:
        return _swept(arg, values)
    refuse_generators(f"argument {position}", arg)
    # What lends no memory (a zarr array) is passed as it is, and may be read by the kernel.
    if lent_array(arg) is not None:
        return argument.part(arg, None, writes=True)
    return Constant(arg)


def _start_from(arg: OffsetFrom, setting: Setting, values: list[Number]) -> ChunkStart:
    """The chunk's start in an array of which the call has a region; its base is a number."""
    if isinstance(setting.axis, tuple):
        raise TypeError("sc.offset + base: a call along two axes has no such offset")
    if len(values) == VALUES:
        raise ValueError(f"sc.offset + base: no room beside {VALUES} numbers among the arguments")
    values.append(arg.base)
    return ChunkStart(len(values) - 1)


def _swept(arg: SweptRng, values: list[Number]) -> ChunkGenerator:
    """A generator that asks which sweep it is."""
    if len(values) == VALUES:
        raise ValueError(f"sc.rng: no room in sweeps beside {VALUES} numbers among the arguments")
    values.append(0)
    return ChunkGenerator(arg.rng, arg.link, len(values) - 1)


def is_split(arg: Any) -> bool:
    """Whether an argument is an array that chunks get parts of."""
    known = isinstance(arg, (SharedArray, np.ndarray, Split, Read, Write, Halo))
    return known or lent_array(arg) is not None


@dataclass(frozen=True)
class _Argument:
    """Binds one argument; a method for each marker."""

    position: int
    setting: Setting

    def split(self, marker: Split) -> Cut:
        return self.part(marker.value, marker.axis, writes=True)

    def write(self, marker: Write) -> Cut:
        return replace(self.part(marker.value, marker.axis, writes=True), reads=False)

    def read(self, marker: Read) -> Cut:
        return self.part(marker.value, marker.axis, writes=False)

    def halo(self, marker: Halo) -> Cut:
        part = self.part(marker.value, marker.axis, writes=False)
        # One more: the caller may take a share.
        workers = self.setting.workers + 1
        if isinstance(part, Block):
            return block_with_halo(self.position, part, marker, workers)
        return part_with_halo(self.position, part.view, part.axis, marker, workers)

    def whole(self, marker: Whole) -> Bound:
        view = _array(self.position, marker.value, shared=False)
        if self.setting.shared and locate(view) is None:
            # As it will arrive, so its type is the same everywhere.
            return Constant(_read_only(np.array(view, order="A", subok=True)))
        return WholeArray(_read_only(view), writes=False)

    def shared(self, marker: Shared) -> WholeArray:
        view = _array(self.position, marker.value, self.setting.shared)
        self._check_writeable(view)
        return WholeArray(view, writes=True)

    def scratch(self, marker: Scratch) -> ScratchRow:
        # One more: the caller may take a share.
        return ScratchRow(marker.shape, marker.dtype, self.setting.workers + 1)

    def per_chunk(self, marker: PerChunk) -> OutputRow:
        return OutputRow(np.zeros((1, *marker.shape), marker.dtype))

    def rng(self, marker: Rng) -> ChunkGenerator:
        return ChunkGenerator(marker, self.setting.link)

    def of_chunk(self, marker: ChunkMarker) -> Bound:
        return _OF_CHUNKS[marker.name]()

    def part(self, value: Any, axis: Any, *, writes: bool) -> Cut:
        view = _array(self.position, value, self.setting.shared)
        axis = self.setting.axis if axis is None else axis
        if writes:
            self._check_writeable(view)
        else:
            view = _read_only(view)
        if isinstance(self.setting.axis, tuple):
            return blocks.bind_block(self.position, view, axis, writes=writes)
        axis = self._axis(view, axis)
        if writes and not view.flags.forc:
            check_chunks(Access(self.position, view, axis, writes=True))
        return Part(view, axis, writes)

    def _axis(self, view: Array, axis: Any) -> int:
        """The axis, counted from the first."""
        if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
            wants = " (a pair is for a call along two: axis=(0, 1))" if type(axis) is tuple else ""
            raise TypeError(f"axis: expected a whole number, got {axis!r}{wants}")
        if not -view.ndim <= axis < view.ndim:
            raise ValueError(
                f"axis {axis} is out of range for argument {self.position} of shape {view.shape}"
            )
        return int(axis) % view.ndim

    def _check_writeable(self, view: Array) -> None:
        if not view.flags.writeable:
            raise ValueError(
                f"argument {self.position} (shape {view.shape}) is read-only, so it can't be split "
                "for writing; pass sc.read(x) or sc.whole(x), or open its file with mode='r+'"
            )


_OF_CHUNKS: dict[str, Callable[[], Bound]] = {
    "offset": ChunkStart,
    "chunk": ChunkNumber,
    "sweep": SweepNumber,
    "range_start": ChunkStart,
    "range_stop": ChunkStop,
}
_BINDERS: dict[type[Any], Callable[[_Argument, Any], Bound]] = {
    Split: _Argument.split,
    Write: _Argument.write,
    Read: _Argument.read,
    Halo: _Argument.halo,
    Whole: _Argument.whole,
    Shared: _Argument.shared,
    Scratch: _Argument.scratch,
    PerChunk: _Argument.per_chunk,
    Rng: _Argument.rng,
    ChunkMarker: _Argument.of_chunk,
}


def _array(position: int, value: Any, shared: bool) -> Array:
    if isinstance(value, SharedArray):
        return value.array
    if isinstance(value, ARRAY_MARKERS):
        raise TypeError(
            f"argument {position} has a marker within a marker; expected one around an array. What "
            "is written is no halo, read or whole as well: pass another array for these"
        )
    if not isinstance(value, np.ndarray):
        return _lent(position, value, shared)
    refuse_subclass(f"argument {position}", value)
    if shared and value.size and locate(value) is None:
        _refuse_plain(position, value)
    # Records keep their attributes. A memmap would be pickled with the file behind it.
    return value if type(value) is np.recarray else value.view(np.ndarray)


def _lent(position: int, value: Any, shared: bool) -> Array:
    """The memory of another library's array, if workers see it."""
    view = lent_array(value)
    if view is None and is_array_like(value):
        raise UnlentError(_unlent(position, value))
    if view is None:
        raise TypeError(
            f"argument {position}: expected a SharedArray or an ndarray inside split(), read(), "
            f"whole() or another marker, got {type(value).__name__}"
        )
    if shared and view.size and locate(view) is None:
        raise TypeError(
            f"argument {position} is a {kind_of(value)} of shape {view.shape} whose memory worker "
            "processes don't see: copy it in, sc.SharedArray(np.asarray(x)), and make the "
            f"{kind_of(value)} of its .array; or pass sc.whole(x) to send each worker a read-only "
            'copy; or choose backend="threads"'
        )
    return view


def _refuse_plain(position: int, array: Array) -> NoReturn:
    if isinstance(array, np.memmap):
        raise TypeError(
            f"argument {position} is a numpy.memmap of shape {array.shape}, which worker processes "
            "don't map: open a .npy file by sc.SharedArray.open(path), which they do; copy others "
            'in, sc.SharedArray(x); or choose backend="threads"'
        )
    raise TypeError(
        f"argument {position} is a plain ndarray of shape {array.shape}, which worker "
        "processes can't write in place: wrap it, sc.SharedArray(x); or pass sc.whole(x) to "
        'send each worker a read-only copy; or choose backend="threads"'
    )


def _read_only(view: Array) -> Array:
    view = view.view()
    view.flags.writeable = False
    return view

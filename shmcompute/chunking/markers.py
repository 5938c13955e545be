"""Markers: how a kernel is to see one argument, as the caller says it.

An unmarked argument is split if it is an array, and passed as it is if not. `binding.bind`
resolves markers to plain views. The file is long because its functions are documented for users.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Number
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike

from shmcompute import config
from shmcompute.chunking.numbers import number_key
from shmcompute.typing import BoundaryName

Axis = int | tuple[int | None, int | None] | None
Depth = int | tuple[int | tuple[int, int], int | tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Split:
    """Each chunk sees its own part, and may write it."""

    value: Any
    axis: Axis = None


@dataclass(frozen=True, eq=False)
class Read:
    """Each chunk sees its own part, read-only."""

    value: Any
    axis: Axis = None


@dataclass(frozen=True, eq=False)
class Write:
    """Each chunk sees its own part, and writes all of it without reading it."""

    value: Any
    axis: Axis = None


@dataclass(frozen=True, eq=False)
class Whole:
    """Each chunk sees all of it, read-only."""

    value: Any


@dataclass(frozen=True, eq=False)
class Shared:
    """Each chunk sees all of it, and may write it."""

    value: Any


@dataclass(frozen=True, eq=False)
class Halo:
    """Each chunk sees its own part, and what lies before and after it, read-only."""

    value: Any
    depth: Depth
    axis: Axis = None
    boundary: Any = None  # a word of BOUNDARIES, a number, or None: there is nothing beyond

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for markers that are alike."""
        return self.depth, number_key(self.boundary)


ARRAY_MARKERS = (Split, Read, Write, Whole, Shared, Halo)  # what arrays may be wrapped in
BOUNDARIES = ("edge", "reflect", "symmetric", "wrap")  # modes of `numpy.pad`


@dataclass(frozen=True)
class Scratch:
    """Memory of each worker's own."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class PerChunk:
    """An output for each chunk."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class ChunkMarker:
    """A number that tells of the chunk. There is but one of each name."""

    def __init__(self, name: str, doc: str) -> None:
        self.name: Final = name
        self.__doc__ = doc

    def __repr__(self) -> str:
        return f"shmcompute.{self.name}"

    def __reduce__(self) -> str:
        return self.name  # there is but one, also where it is copied or sent to

    def __add__(self, base: int) -> OffsetFrom:
        if self is not offset or not isinstance(base, (int, np.integer)):
            return NotImplemented
        return OffsetFrom(int(base))


@dataclass(frozen=True)
class OffsetFrom:
    """Where the chunk starts, where the call's own axis starts at `base` of a longer one."""

    base: int


_OFFSET = """An argument: where the chunk starts along the split axis: an int, or a pair of them.

``sc.offset + base`` is that of a call on a region of a longer array, which starts there.

Examples
--------
>>> import numpy as np, shmcompute as sc
>>> def number(x, first):
...     x[:] = range(first, first + len(x))
>>> with sc.SharedArray.zeros(4) as arr:
...     sc.parallel_apply(number, arr, sc.offset)
...     print(arr.array)
[0. 1. 2. 3.]
"""
_CHUNK = """An argument: the number of the chunk, an int from 0 on.

Examples
--------
>>> import numpy as np, shmcompute as sc
>>> def label(x, chunk):
...     x[:] = chunk
>>> with sc.SharedArray.zeros(5) as arr:
...     sc.parallel_apply(label, arr, sc.chunk, chunksize=2)
...     print(arr.array)
[0. 0. 1. 1. 2.]
"""
_SWEEP = """An argument: the number of the sweep, an int from 0 on, in `parallel_iterate`.

Examples
--------
>>> import numpy as np, shmcompute as sc
>>> def add(x, sweep):
...     x += sweep
>>> with sc.SharedArray.zeros(3) as arr:
...     last = sc.parallel_iterate(add, arr, sc.sweep, times=4)
...     print(last.array)
[6. 6. 6.]
"""
offset: Final = ChunkMarker("offset", _OFFSET)
chunk: Final = ChunkMarker("chunk", _CHUNK)
sweep: Final = ChunkMarker("sweep", _SWEEP)
range_start: Final = ChunkMarker("range_start", "Of a range of numbers: where the chunk starts.")
range_stop: Final = ChunkMarker("range_stop", "Of a range of numbers: where the chunk ends.")


def split(x: Any, axis: Axis = None) -> Split:
    """Split `x` along `axis` (that of the call by default); its chunks are written in place.

    In a call along two axes, ``axis=(0, 1)``, it is a pair: which axes of `x` are the call's.

    Parameters
    ----------
    x : SharedArray or view of one
    axis : int, optional
        That of the call by default.

    Returns
    -------
    marker
        An argument for `parallel_apply` and its like.

    Raises
    ------
    TypeError, ValueError
        From the call, before anything runs: for what is no array or can't be shared, for another
        length than other arguments have, for memory that other chunks write.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def double(columns):
    ...     columns *= 2
    >>> with sc.SharedArray(np.ones((2, 3))) as arr:
    ...     sc.parallel_apply(double, sc.split(arr, axis=1))
    ...     print(arr.array.sum())
    12.0
    """
    return Split(x, axis)


def read(x: Any, axis: Axis = None) -> Read:
    """Split `x` along `axis`, read-only: a Numba kernel that writes it does not compile.

    In a call along two axes, ``axis=(0, 1)``, it is a pair: which axes of `x` are the call's first
    and second, or None for one along which each block sees all of `x`.

    Parameters
    ----------
    x : SharedArray or view of one
    axis : int, optional
        That of the call by default.

    Returns
    -------
    marker
        An argument for `parallel_apply` and its like.

    Raises
    ------
    TypeError, ValueError
        From the call, before anything runs: for what is no array or can't be shared, for another
        length than other arguments have, for memory that other chunks write.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.zeros(3)) as out, sc.SharedArray(np.arange(3.0)) as x:
    ...     sc.parallel_apply(np.square, out, sc.read(x))
    ...     print(out.array)
    [0. 1. 4.]
    """
    return Read(x, axis)


def whole(x: Any) -> Whole:
    """Give every chunk all of `x`, read-only: a table, weights, a reference frame.

    Parameters
    ----------
    x : SharedArray, view of one, or any other array
        A plain array does as well: each worker is sent a copy. What is no array needs no marker.

    Returns
    -------
    marker
        An argument for `parallel_apply` and its like.

    Raises
    ------
    ValueError
        From the call, before anything runs: for memory that chunks write.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def subtract(row, table):
    ...     row -= table
    >>> with sc.SharedArray(np.ones((4, 2))) as arr, sc.SharedArray(np.ones(2)) as table:
    ...     sc.parallel_apply(subtract, arr, sc.whole(table))
    ...     print(arr.array.sum())
    0.0
    """
    return Whole(x)


def write(x: Any, axis: Axis = None) -> Write:
    """Split `x` along `axis`; each chunk writes all of its part, whatever stood there before.

    It is what `split` is, and says that nobody needs to bring along what `x` holds.

    Parameters
    ----------
    x : SharedArray or view of one
    axis : int, optional
        That of the call by default.

    Returns
    -------
    marker
        An argument for `parallel_apply` and its like.

    Raises
    ------
    TypeError, ValueError
        From the call, before anything runs: for what is no array or can't be shared, for another
        length than other arguments have, for memory that other chunks write.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray.empty(3) as out, sc.SharedArray(np.arange(3.0)) as x:
    ...     sc.parallel_apply(np.square, sc.write(out), sc.read(x))
    ...     print(out.array)
    [0. 1. 4.]
    """
    return Write(x, axis)


def shared(x: Any) -> Shared:
    """Give every chunk all of `x`, to be read and written: for scatter, atomics, wavefronts.

    The caller promises that no two chunks write one element, or one what another reads, unless they
    do so by `atomic_add` and its like. ``debug=True`` says where several have.

    Parameters
    ----------
    x : SharedArray or view of one

    Returns
    -------
    marker
        An argument for `parallel_apply` and its like.

    Raises
    ------
    TypeError, ValueError
        From the call, before anything runs: for an array that is not shared, with worker
        processes, and for `retries`, which could not put back what chunks have written.

    Examples
    --------
    >>> import numpy as np, numba as nb, shmcompute as sc
    >>> @nb.njit
    ... def scatter(targets, out, offset):
    ...     for i in range(targets.size):
    ...         out[targets[i]] = offset + i
    >>> with sc.SharedArray(np.array([2, 0, 1])) as targets, sc.SharedArray.zeros(3) as out:
    ...     sc.parallel_apply(scatter, sc.read(targets), sc.shared(out), sc.offset)
    ...     print(out.array)
    [1. 2. 0.]
    """
    return Shared(x)


def halo(
    x: Any,
    depth: Depth,
    *,
    axis: Axis = None,
    boundary: BoundaryName | complex | np.generic | None = None,
) -> Halo:
    """Split `x` along `axis`, read-only; each chunk sees `depth` more elements on each side.

    Parameters
    ----------
    x : SharedArray or view of one, which the call does not write
    depth : int or (int, int)
        How many elements more, before the chunk's own and after them. In a call along two axes an
        int is for both, and a pair has the depth along each: an int, or ``(before, after)``.
    axis : int or pair, optional
        That of the call by default.
    boundary : {'edge', 'reflect', 'symmetric', 'wrap'} or number, optional
        Beyond the ends of `x` chunks see what `numpy.pad` would put there, and `x` is as long as
        the call's other arrays. Chunks at the ends, which are cut narrow, see padded copies.
        Without it `x` is longer: ``[start, stop)`` sees ``x[start : stop + before + after]``.

    Returns
    -------
    marker
        An argument for `parallel_apply` and its like.

    Raises
    ------
    TypeError, ValueError
        For a depth that is no whole number or below 0, and for an unknown boundary. From the call,
        before anything runs: for a length that does not fit, a depth that `numpy.pad` would refuse,
        and for what the call writes.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def mean(out, x):
    ...     out[:] = (x[:-2] + x[1:-1] + x[2:]) / 3
    >>> with sc.SharedArray(np.zeros(5)) as new, sc.SharedArray([0.0, 0, 9, 0, 0]) as old:
    ...     sc.parallel_apply(mean, new, sc.halo(old, 1, boundary="wrap"))
    ...     sc.parallel_apply(mean, old[1:-1], sc.halo(new, 1))
    ...     print(new.array, old.array)
    [0. 3. 3. 3. 0.] [0. 2. 3. 2. 0.]
    """
    checked = _depth(depth)
    if isinstance(boundary, str):
        config.one_of("boundary", boundary, BOUNDARIES)
    elif boundary is not None and not isinstance(boundary, (Number, np.generic)):
        known = f"one of {BOUNDARIES}, a number or None"
        raise TypeError(f"halo: boundary: expected {known}, got {boundary!r}")
    return Halo(x, checked, axis, boundary)


def _depth(depth: Any, given: Any = None, *, nests: bool = True) -> Any:
    """How much a chunk sees before and after its own, checked: a number, or a pair of them."""
    given = depth if given is None else given
    if nests and isinstance(depth, (tuple, list)) and len(depth) == 2:
        outer = given is depth
        return tuple(_depth(one, given, nests=outer) for one in depth)
    if not isinstance(depth, (int, np.integer)) or type(depth) is bool:
        wanted = "a whole number, or (before, after); in two dimensions a pair of these"
        raise TypeError(f"halo: depth: expected {wanted}, got {given!r}")
    if depth < 0:
        raise ValueError(f"halo: depth: expected no number below 0, got {given!r}")
    return int(depth)


def scratch(shape: int | tuple[int, ...], dtype: DTypeLike = float) -> Scratch:
    """Memory of each worker's own, of this shape: made once, and kept from chunk to chunk.

    It starts as zeros, and a chunk finds there what the worker's last chunk has left.

    Parameters
    ----------
    shape : int or tuple of int
    dtype : dtype_like, optional

    Returns
    -------
    marker
        An argument for `parallel_apply` and its like.

    Raises
    ------
    TypeError, ValueError
        For what is no shape, and for a dtype that holds Python objects.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def reverse(row, room):
    ...     room[:] = row[0]
    ...     row[0] = room[::-1]
    >>> with sc.SharedArray(np.arange(6.0).reshape(2, 3)) as arr:
    ...     sc.parallel_apply(reverse, arr, sc.scratch(3), chunksize=1)
    ...     print(arr.array)
    [[2. 1. 0.]
     [5. 4. 3.]]
    """
    return Scratch(*_layout("scratch", shape, dtype))


def per_chunk(shape: int | tuple[int, ...], dtype: DTypeLike = float) -> PerChunk:
    """An output of this shape for each chunk; the call returns them, as one `SharedArray`.

    Its first axis is the chunk's number. Each starts as zeros. A kernel gets an array, also for the
    shape ``()``: it writes ``out[()] = total``. A call with several of them returns a tuple.

    Parameters
    ----------
    shape : int or tuple of int
        ``()`` for a number.
    dtype : dtype_like, optional

    Returns
    -------
    marker
        An argument for `parallel_apply` and its like.

    Raises
    ------
    TypeError, ValueError
        For what is no shape, and for a dtype that holds Python objects.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def total(x, out):
    ...     out[()] = x.sum()
    >>> with sc.SharedArray(np.arange(6.0)) as arr:
    ...     with sc.parallel_apply(total, arr, sc.per_chunk(()), chunksize=2) as totals:
    ...         print(totals.array)
    [1. 5. 9.]
    """
    return PerChunk(*_layout("per_chunk", shape, dtype))


def _layout(
    what: str, shape: int | tuple[int, ...], dtype: DTypeLike
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of memory that is to be made, checked."""
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    if not all(
        isinstance(size, (int, np.integer)) and not isinstance(size, bool) for size in sizes
    ):
        raise TypeError(f"{what}: expected a whole number or a tuple of them, got shape {shape!r}")
    if any(size < 0 for size in sizes):
        raise ValueError(f"{what}: expected no size below 0, got shape {shape!r}")
    kind = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"{what}: Python objects can't be in shared memory, got dtype {kind}")
    return tuple(map(int, sizes)), kind

"""`parallel_scan`: prefix sums, and what else is accumulated, in two passes.

The first finds the total of each part but the last, the second goes through each part from where
those before it have come to. Where lanes beside the axis suffice for all, each is gone through in
one pass. (Blelloch, Prefix Sums and Their Applications, 1990: reduce, then scan.)

The file is long because its front door is documented for users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from shmcompute.algorithms.associative import associative
from shmcompute.algorithms.part_sizes import part_length
from shmcompute.arrays import SharedArray, refuse_subclass
from shmcompute.calls import await_turn, call, pool_for
from shmcompute.chunking import chunk, per_chunk, read, split, whole
from shmcompute.plans import Options
from shmcompute.pool import Pool
from shmcompute.system.tracebacks import shorten
from shmcompute.typing import Array, BackendName

SMALLEST = 1 << 20  # bytes of a part: NumPy goes through them in half a millisecond
BLOCK = 1 << 17  # bytes that stay in a core's cache while they are copied and gone through
LANES = 16  # beside the axis, that are worth to be dealt
RUN = 1 << 12  # bytes that a part of lanes is to have in a row

A = TypeVar("A", SharedArray, Array)


def parallel_scan(
    op: Any,
    x: A,
    out: A | None = None,
    *,
    axis: int = 0,
    exclusive: bool = False,
    initial: Any = None,
    pool: Pool | None = None,
    backend: BackendName | None = None,
) -> A:
    """Replace each element along `axis` by `op` of all up to it, as ``op.accumulate`` does.

    The result is the same, bit for bit, for any number of workers, on every backend, storage and
    start method: parts are cut by shape and strides alone. Where integers are added, or anything is
    compared, it is NumPy's; sums of floats differ from NumPy's in their last bits, as each part's
    total is added as `numpy.sum` does.

    Parameters
    ----------
    op : ufunc or jitted function of two
        It is to be associative, up to rounding, which is known of NumPy's own alone.
    x : SharedArray or ndarray
        What is scanned, in place unless there is an `out`.
    out : SharedArray or ndarray, optional
        Where to put it; of the same shape, and of any dtype that NumPy takes there.
    axis : int
        Along which axis.
    exclusive : bool
        Whether an element is left out of its own result: the first is then `initial`, or what
        changes nothing (0 for `numpy.add`).
    initial : optional
        Comes before the first element: a number, or an array of what one step along the axis has.
    pool, backend
        Whose workers. By default the common threads: code of our own needs no isolation. These run
        large sums of numbers (`numpy.add` along a line) in any case, as `numpy.cumsum` does.

    Returns
    -------
    SharedArray or ndarray
        `out`, or else `x`.

    Raises
    ------
    TypeError
        For what is no array, an `op` that is neither ufunc nor jitted, or does not take its own
        results, an `initial` of another kind.
    ValueError
        For another shape of `out`, an array that is read-only, a ufunc that is not associative, an
        exclusive scan by one that has no identity, without `initial`.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.arange(1, 6)) as arr:
    ...     print(sc.parallel_scan(np.add, arr).array)
    ...     print(sc.parallel_scan(np.maximum, arr, exclusive=True, initial=0).array)
    [ 1  3  6 10 15]
    [ 0  1  3  6 10]
    """
    chosen = pool_for(pool, backend if pool is not None or backend else "threads")
    if chosen.records is not None:
        await_turn(chosen, None)
        chosen = chosen.candidate("threads")  # our own code is quickest there
    given = x if out is None else out
    source, target = _plain("x", x), _plain("out", given)
    axis = _checked(source, target, axis)
    ufunc, dtype = associative(op, target.dtype, source.dtype)
    source, target = np.moveaxis(source, axis, 0), np.moveaxis(target, axis, 0)
    start = _start(ufunc, dtype, target.shape[1:], exclusive, initial)
    if target.ndim == 1 and not exclusive and start is None and dtype == target.dtype:
        from shmcompute.algorithms import cumulative  # noqa: PLC0415  # it brings machine code

        # By whichever pool, so that bits do not depend on it.
        accumulate: Any = getattr(ufunc, "accumulate", None)
        form = cumulative.FUNCTIONS.get(accumulate)
        if form is not None and form(source, 0, dtype, target) is not NotImplemented:
            return given
    if target.size:
        kept = _source(source, target)
        scan = _Scan(_Steps(ufunc, dtype, bool(exclusive)), target, kept, start, chosen)
        try:
            scan.run()
        except BaseException as error:
            shorten(error)
            raise
    return given


def _plain(name: str, value: Any) -> Array:
    if isinstance(value, SharedArray):
        return value.array
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a SharedArray or an ndarray, got {type(value).__name__}")
    refuse_subclass(name, value)
    return value


def _checked(source: Array, target: Array, axis: int) -> int:
    """The axis, counted from the first."""
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(f"axis: expected a whole number, got {axis!r}")
    if not -source.ndim <= axis < source.ndim:
        raise np.exceptions.AxisError(int(axis), source.ndim)
    if source.shape != target.shape:
        raise ValueError(f"out: expected the shape of x, {source.shape}, got {target.shape}")
    if not target.flags.writeable:
        raise ValueError("the result can't be written in place: that array is read-only; pass out=")
    return int(axis) % source.ndim


def _start(
    ufunc: Any, dtype: np.dtype[Any], shape: tuple[int, ...], exclusive: bool, initial: Any
) -> Array | None:
    """What comes before the first step, where anything does."""
    if initial is None and not exclusive:
        return None
    if initial is None and (initial := ufunc.identity) is None:
        raise ValueError(
            f"exclusive: {ufunc.__name__} has no identity, so say what comes first: initial="
        )
    value = np.asarray(initial)
    weak = type(initial) in (bool, int) and dtype.kind in "biufcm"
    if not weak and not np.can_cast(value.dtype, dtype, "same_kind"):
        raise TypeError(f"initial: expected {dtype}, or what fits in it, got {value.dtype}")
    return np.broadcast_to(value, shape).astype(dtype)


def _source(source: Array, target: Array) -> Array | None:
    """Where to read; None: where the result is written, too."""
    places = [(one.ctypes.data, one.strides, one.dtype) for one in (source, target)]
    if places[0] == places[1]:
        return None
    if np.may_share_memory(source, target):  # what is read would have been written before
        return SharedArray(source).array
    return source


@dataclass(frozen=True)
class _Steps:
    """What is done to a part, whose first axis is the one along which it is scanned."""

    ufunc: Any
    dtype: np.dtype[Any]  # in which it works
    exclusive: bool

    def __call__(self, target: Array, source: Array | None, carry: Array | None) -> None:
        """Go through all of it, block by block."""
        row = max(1, self.dtype.itemsize * target[0].size)
        step = max(1, BLOCK // row)
        for first in range(0, len(target), step):
            block = target[first : first + step]
            given = block if source is None else source[first : first + step]
            carry = self._block(block, given, carry)

    def _block(self, target: Array, source: Array, carry: Array | None) -> Array:
        direct = not self.exclusive and target.dtype == self.dtype
        work = target if direct else np.empty(target.shape, self.dtype)
        if work is not source:
            np.copyto(work, source, casting="unsafe")
        if carry is not None:
            self.ufunc(carry, work[:1], out=work[:1])
        self.ufunc.accumulate(work, axis=0, out=work)
        if self.exclusive and carry is not None:
            np.copyto(target[:1], carry, casting="unsafe")
            np.copyto(target[1:], work[:-1], casting="unsafe")
        elif not direct:
            np.copyto(target, work, casting="unsafe")
        last: Array = work[-1:].copy()
        return last[0, ...]


@dataclass(frozen=True)
class _Total:
    """A kernel: the total of a part."""

    steps: _Steps

    def __call__(self, part: Array, total: Array) -> None:
        self.steps.ufunc.reduce(part, axis=0, out=total)  # whose dtype is that of the steps


@dataclass(frozen=True)
class _Part:
    """A kernel: a part, from where those before it have come to."""

    steps: _Steps
    starts: bool  # whether something comes before the first part

    def __call__(self, number: int, carries: Array, target: Array, *source: Array) -> None:
        carry = carries[number, ...] if number or self.starts else None
        self.steps(target, source[0] if source else None, carry)


@dataclass(frozen=True)
class _Lane:
    """A kernel: some lanes, whole."""

    steps: _Steps

    def __call__(self, start: Array | None, target: Array, *rest: Array) -> None:
        self.steps(target, rest[0] if rest else None, start)


@dataclass(frozen=True)
class _Scan:
    """One call, with the axis first."""

    steps: _Steps
    target: Array
    source: Array | None
    start: Array | None
    pool: Pool

    def run(self) -> None:
        """Scan by parts of the axis, by lanes, or at once."""
        lanes = self._lanes()
        length = self.target.shape[lanes]
        size = part_length(length, self.target.size * self.steps.dtype.itemsize, SMALLEST)
        if size >= length:
            self.steps(self.target, self.source, self.start)
        elif lanes:
            self._by_lanes(lanes, size)
        else:
            self._by_parts(size)

    def _lanes(self) -> int:
        """The axis whose lanes are dealt; 0: the axis itself is cut."""
        shape, strides = self.target.shape, [abs(stride) for stride in self.target.strides]
        worth = [
            axis
            for axis in range(1, self.target.ndim)
            if shape[axis] >= LANES
            and (strides[axis] >= strides[0] or strides[axis] * shape[axis] >= RUN * LANES)
        ]
        return max(worth, key=lambda axis: strides[axis] * shape[axis], default=0)

    def _by_lanes(self, axis: int, size: int) -> None:
        start: Any = self.start
        if start is not None:
            start = read(np.broadcast_to(start, self.target.shape[1:]).copy(), axis - 1)
        if start is not None and self.pool.running.shared:
            start = read(SharedArray(start.value).array, axis - 1)
        self._call(_Lane(self.steps), (start, *self._arrays(axis)), size)

    def _by_parts(self, size: int) -> None:
        carries = self._carries(size)
        kernel = _Part(self.steps, self.start is not None)
        self._call(kernel, (chunk, whole(carries), *self._arrays(0)), size)

    def _carries(self, size: int) -> Array:
        """For each part what those before it come to."""
        given = self.target if self.source is None else self.source
        before = (len(given) - 1) // size  # parts with one behind them
        totals = per_chunk(given.shape[1:], self.steps.dtype)
        with self._call(_Total(self.steps), (read(given[: before * size]), totals), size) as found:
            carries: Array = np.concatenate([found.array[:1], found.array])
        if self.start is not None:
            carries[0] = self.start
            carries[1] = self.steps.ufunc(self.start, carries[1])
        for number in range(2, len(carries)):
            carries[number] = self.steps.ufunc(carries[number - 1], carries[number])
        return carries

    def _arrays(self, axis: int) -> tuple[Any, ...]:
        written = split(self.target, axis)
        return (written,) if self.source is None else (written, read(self.source, axis))

    def _call(self, kernel: Callable[..., None], args: tuple[Any, ...], size: int) -> Any:
        return call(kernel, args, Options(chunksize=size), self.pool, None)

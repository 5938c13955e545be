"""Mean, variance and standard deviation: parts by NumPy, and what they come to together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from shmcompute.algorithms import block_squares
from shmcompute.algorithms.parts import run_parts
from shmcompute.algorithms.reductions import (
    FLOATS,
    INTEGERS,
    NOT_GIVEN,
    SUMMED,
    Reduction,
    axes_of,
    give,
    shape_of,
    takes,
)
from shmcompute.algorithms.slabs import Slabs, slabs
from shmcompute.typing import Array

# So many parts as there are of `slabs.PART` bytes: what is subtracted stays in the cache.
MANY = 1 << 30


def _mean(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    *,
    where: Any = NOT_GIVEN,
) -> Any:
    kind, axes = _kind(a, dtype), axes_of(a, axis)
    if kind is None or not axes or not takes(out, shape_of(a, axes, keepdims), kind):
        return NotImplemented
    count: Any = np.intp(np.prod([a.shape[axis] for axis in axes]))
    if where is not NOT_GIVEN:
        mask = np.broadcast_to(where, a.shape)
        count = np.add.reduce(mask, axis=axes, dtype=np.intp, keepdims=keepdims)
    total = Reduction(np.add, SUMMED).of(a, axis, kind, None, keepdims, where=where)
    if total is NotImplemented or not np.all(count):  # of a mean of nothing NumPy warns
        return NotImplemented
    return give(np.true_divide(total, count).astype(kind, copy=False), out)


def _kind(a: Any, dtype: Any) -> np.dtype[Any] | None:
    """The dtype that a mean is computed in, and has; None if NumPy is to do it."""
    if type(a) is not np.ndarray or a.dtype.char not in INTEGERS + FLOATS:
        return None
    default = a.dtype if a.dtype.char in FLOATS else np.dtype(np.float64)
    kind = np.dtype(default.newbyteorder("=") if dtype is None else dtype)
    if not kind.isnative:  # which NumPy refuses
        return None
    return kind if kind.char in FLOATS else None


def _var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    correction: Any = NOT_GIVEN,
    **others: Any,
) -> Any:
    kind, axes = _kind(a, dtype), axes_of(a, axis)
    if others or kind is None or kind.kind == "c" or not axes or a.dtype.kind == "c":
        return NotImplemented
    if correction is not NOT_GIVEN:
        if ddof != 0:
            return NotImplemented  # NumPy says that they are the same
        ddof = correction
    cut, shape = slabs(a, most=MANY), shape_of(a, axes, keepdims)
    count = np.prod([a.shape[axis] for axis in axes])
    if cut is None or not takes(out, shape, kind) or not count > ddof:
        return NotImplemented
    if cut.axis in axes:
        squares = _squares(a, axes, kind, cut)
        found = np.true_divide(squares, count - ddof).astype(kind, copy=False)
    else:
        found = _apart(a, axes, kind, cut, ddof)
    return give(found.reshape(shape), out)


def _apart(a: Array, axes: Sequence[int], kind: np.dtype[Any], cut: Slabs, ddof: Any) -> Array:
    """Variances of parts that have nothing to do with one another."""
    found = np.empty(shape_of(a, axes, True), kind)

    def part(number: int) -> None:
        index = cut.index(number)
        np.var(a[index], axis=axes, dtype=kind, out=found[index], ddof=ddof, keepdims=True)

    run_parts(part, cut.count)
    return found


def _squares(a: Array, axes: Sequence[int], kind: np.dtype[Any], cut: Slabs) -> Array:
    """The sum of squared differences from the mean, of the parts together.

    Chan, Golub and LeVeque: Updating formulae and a pairwise algorithm for computing sample
    variances. COMPSTAT 1982.
    """
    shape = list(shape_of(a, axes, True))
    others = [axis for axis in axes if axis != cut.axis]
    each = np.prod([a.shape[axis] for axis in others], dtype=np.intp)
    shape[cut.axis] = cut.count
    means, squares = np.empty(shape, _wide(kind)), np.empty(shape, _wide(kind))
    if len(axes) == a.ndim and kind == a.dtype and block_squares.ready(a):
        _by_code(a, cut, means.reshape(-1), squares.reshape(-1))
    else:
        _by_numpy(a, axes, kind, cut, means, squares)
    along = [1] * a.ndim
    along[cut.axis] = cut.count
    sizes = np.diff(cut.edges).reshape(along) * each
    mean = np.add.reduce(means * sizes, axis=cut.axis, keepdims=True) / sizes.sum()
    squares += sizes * (means - mean) ** 2
    return np.asarray(np.add.reduce(squares, axis=cut.axis, keepdims=True))


def _by_code(a: Array, cut: Slabs, means: Array, squares: Array) -> None:
    """Mean and squared differences of each slab of a contiguous array."""
    found = np.empty((cut.count, 2))

    def part(number: int) -> None:
        block_squares.squares(a[cut.index(number)].reshape(-1), found[number])

    run_parts(part, cut.count)
    means[:], squares[:] = found.T


def _by_numpy(
    a: Array,
    axes: Sequence[int],
    kind: np.dtype[Any],
    cut: Slabs,
    means: Array,
    squares: Array,
) -> None:
    """Means and squared differences of each slab along the axes."""
    each = np.prod([a.shape[axis] for axis in axes if axis != cut.axis], dtype=np.intp)
    longest = a[cut.place(0, max(map(cut.length, range(cut.count))))]
    rooms: list[Array] = []  # for differences: memory that is new costs more than they do

    def part(number: int) -> None:
        room = _taken(rooms, longest, kind)
        slab, place = a[cut.index(number)], cut.place(number, number + 1)
        mean = np.add.reduce(slab, axis=axes, dtype=kind, keepdims=True)
        mean /= each * cut.length(number)
        difference = room[cut.place(0, cut.length(number))]
        np.subtract(slab, mean, out=difference, dtype=kind)
        np.multiply(difference, difference, out=difference)
        means[place] = mean
        squares[place] = np.add.reduce(difference, axis=axes, keepdims=True)
        rooms.append(room)

    run_parts(part, cut.count)


def _taken(rooms: list[Array], like: Array, kind: np.dtype[Any]) -> Array:
    """One of the rooms, or a new one."""
    try:
        return rooms.pop()
    except IndexError:
        return np.empty_like(like, dtype=kind)


def _wide(kind: np.dtype[Any]) -> np.dtype[Any]:
    return np.promote_types(kind, np.float64)


def _std(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, *args: Any, **kw: Any
) -> Any:
    variance = _var(a, axis, dtype, out, *args, **kw)
    return NotImplemented if variance is NotImplemented else np.sqrt(variance, out=out)


FUNCTIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    np.mean: _mean,
    np.var: _var,
    np.std: _std,
}

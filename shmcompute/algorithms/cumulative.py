"""Cumulative sums and products: an axis in blocks, the same for any number of workers.

Each block of `BLOCK` elements is summed up from its own start, then what comes before it is added:
the totals of the blocks, summed up one after the other. As in NumPy's sums, no element is less than
the one before it where none is negative. Blelloch: Prefix sums and their applications, 1990.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.algorithms import block_sums
from shmcompute.algorithms.parts import run_parts
from shmcompute.algorithms.reductions import FLOATS, INTEGERS, axes_of
from shmcompute.algorithms.slabs import Slabs, slabs
from shmcompute.typing import Array

Form = Callable[..., Any]

BLOCK = 512  # elements


def _form(ufunc: np.ufunc, kinds: str, *, of_all: bool) -> Form:
    """The parallel form of ``ufunc.accumulate``; `of_all`: without an axis, of all elements."""

    def form(a: Any, axis: Any = None if of_all else 0, dtype: Any = None, out: Any = None) -> Any:
        if type(a) is not np.ndarray or not a.dtype.isnative or isinstance(axis, tuple):
            return NotImplemented
        axes, kind = axes_of(a, axis), _kind(ufunc, a, dtype)
        if axis is None and a.ndim > 1:
            if not of_all or not a.flags.c_contiguous:
                return NotImplemented
            a, axes = a.reshape(-1), (0,)
        if len(axes) != 1 or kind is None:
            return NotImplemented
        target = _target(a, kind, out)
        if target is None:
            return NotImplemented
        if a.ndim > 1:
            done = _along(ufunc, a, axes[0], target)
        else:
            done = kind.char in kinds and _scan(ufunc, a, target)
        if not done:
            return NotImplemented
        return target if out is None else out

    return form


def _kind(ufunc: np.ufunc, a: Array, dtype: Any) -> np.dtype[Any] | None:
    """The dtype of the result; None if NumPy is to say what is wrong with it."""
    if a.dtype.char not in f"{INTEGERS}{FLOATS}e":
        return None
    try:
        found: np.dtype[Any] = ufunc.accumulate(a[(slice(0, 1),) * a.ndim], dtype=dtype).dtype
    except (TypeError, ValueError):
        return None
    return found


def _target(a: Array, kind: np.dtype[Any], out: Any) -> Array | None:
    """Where the results go; None where NumPy has to see to it."""
    if out is None:
        return np.empty_like(a, dtype=kind)
    if type(out) is not np.ndarray or out.dtype != kind or not out.flags.writeable:
        return None
    if out.size == a.size and a.ndim == 1 and out.flags.c_contiguous:
        out = out.reshape(-1)
    if out.shape != a.shape or (np.may_share_memory(out, a) and not _is_same(out, a)):
        return None
    target: Array = out
    return target


def _is_same(one: Array, other: Array) -> bool:
    """Whether both are views of the same elements, in the same order."""
    mine, others = one.__array_interface__, other.__array_interface__
    return all(mine[name] == others[name] for name in ("data", "strides", "shape", "typestr"))


def _scan(ufunc: np.ufunc, a: Array, target: Array) -> bool:
    """Along a line of elements; whether it was done."""
    count = a.size // BLOCK
    if not (a.flags.c_contiguous and target.flags.c_contiguous):
        return False
    rows, found = (line[: count * BLOCK].reshape(count, BLOCK) for line in (a, target))
    cut = slabs(found, whole=1)
    if cut is None or (target.dtype.kind == "f" and not _stays_finite(a, target.dtype)):
        return False
    rest = ufunc.accumulate(a[count * BLOCK :], dtype=target.dtype)
    in_blocks = _by_code if ufunc is np.add and block_sums.ready(rows, found) else _by_numpy
    in_blocks(ufunc, rows, found, cut)
    target[count * BLOCK :] = ufunc(target[count * BLOCK - 1], rest)
    return True


def _by_code(ufunc: np.ufunc, rows: Array, found: Array, cut: Slabs) -> None:
    """Blocks in machine code, which reads all twice and writes once."""
    totals = np.empty(len(rows), found.dtype)

    def add_up(number: int) -> None:
        index = cut.index(number)
        block_sums.totals(rows[index], totals[index])

    def put_together(number: int) -> None:
        index = cut.index(number)
        block_sums.sums(rows[index], before[index], found[index])

    run_parts(add_up, cut.count)
    before = _before(ufunc, totals)
    run_parts(put_together, cut.count)


def _by_numpy(ufunc: np.ufunc, rows: Array, found: Array, cut: Slabs) -> None:
    """The same bits by NumPy, which adds no faster than one addition after the other."""

    def add_up(number: int) -> None:
        index = cut.index(number)
        ufunc.accumulate(rows[index], axis=1, dtype=found.dtype, out=found[index])

    def put_together(number: int) -> None:
        index = cut.index(number)
        ufunc(before[index][:, None], found[index], out=found[index])

    run_parts(add_up, cut.count)
    before = _before(ufunc, found[:, -1])
    run_parts(put_together, cut.count)


def _before(ufunc: np.ufunc, totals: Array) -> Array:
    """What comes before each block."""
    before = np.empty_like(totals, order="C")
    before[0] = -0.0 if totals.dtype.kind == "f" else ufunc.identity  # which keeps a -0.0
    ufunc.accumulate(totals[:-1], dtype=totals.dtype, out=before[1:])
    return before


def _stays_finite(a: Array, kind: np.dtype[Any]) -> bool:
    """Whether no sum can overflow: else NumPy's stays infinite, where a block's is not."""
    cut = slabs(a)
    if cut is None:
        return False
    lows, highs = np.empty(cut.count, a.dtype), np.empty(cut.count, a.dtype)

    def part(number: int) -> None:
        line = a[cut.index(number)]
        lows[number], highs[number] = np.minimum.reduce(line), np.maximum.reduce(line)

    run_parts(part, cut.count)
    largest = max(abs(float(lows.min())), abs(float(highs.max())))
    return largest * a.size < float(np.finfo(kind).max) / 2


def _along(ufunc: np.ufunc, a: Array, axis: int, target: Array) -> bool:
    """Along an axis, where another one is cut; whether it was done."""
    cut = slabs(a, whole=axis)
    if cut is None:
        return False

    def part(number: int) -> None:
        index = cut.index(number)
        ufunc.accumulate(a[index], axis=axis, dtype=target.dtype, out=target[index])

    run_parts(part, cut.count)
    return True


SUMS = f"{INTEGERS}fd"

FUNCTIONS: dict[Callable[..., Any], Form] = {
    np.cumsum: _form(np.add, SUMS, of_all=True),
    # Products of floats leave their range on the way, or not, as they are grouped.
    np.cumprod: _form(np.multiply, INTEGERS, of_all=True),
    np.add.accumulate: _form(np.add, SUMS, of_all=False),
    np.multiply.accumulate: _form(np.multiply, INTEGERS, of_all=False),
}

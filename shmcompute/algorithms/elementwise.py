"""What NumPy does to each element apart, done to slabs at once: filling, copying, rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from shmcompute.algorithms.parts import run_parts
from shmcompute.algorithms.reductions import FLOATS, INTEGERS, ORDERED, takes
from shmcompute.algorithms.slabs import Slabs, slabs
from shmcompute.typing import Array

Form = Callable[..., Any]


def _each(cut: Slabs, function: Callable[[tuple[slice, ...]], Any]) -> None:
    run_parts(lambda number: function(cut.index(number)), cut.count)


def _target(a: Array, kind: np.dtype[Any], out: Any) -> Array | None:
    """Where the results go; None where NumPy has to see to it."""
    if out is None:
        return np.empty_like(a, dtype=kind)
    if not takes(out, a.shape, kind) or (out is not a and np.may_share_memory(out, a)):
        return None
    return out  # type: ignore[no-any-return]


def _clip(a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, **named: Any) -> Any:
    low, high = named.get("min", a_min), named.get("max", a_max)
    twice = (a_min is not low and a_min is not None) or (a_max is not high and a_max is not None)
    if twice or named.keys() - {"min", "max"} or not _is_numeric(a):
        return NotImplemented
    if (low is None and high is None) or np.ndim(low) or np.ndim(high):
        return NotImplemented
    cut, kind = slabs(a), np.clip(a[_first(a)], low, high).dtype
    target = None if cut is None else _target(a, kind, out)
    if cut is None or target is None:
        return NotImplemented
    _each(cut, lambda index: np.clip(a[index], low, high, out=target[index]))
    return target


def _is_numeric(a: Any) -> bool:
    return type(a) is np.ndarray and a.dtype.char in f"{INTEGERS}{FLOATS}e"


def _first(a: Array) -> tuple[slice, ...]:
    return (slice(0, 1),) * a.ndim


def _round(a: Any, decimals: Any = 0, out: Any = None) -> Any:
    if not _is_numeric(a) or a.dtype.kind not in "fc":  # whole numbers NumPy rounds otherwise
        return NotImplemented
    cut, kind = slabs(a), np.round(a[_first(a)], decimals).dtype
    target = None if cut is None else _target(a, kind, out)
    if cut is None or target is None:
        return NotImplemented
    _each(cut, lambda index: np.round(a[index], decimals, out=target[index]))
    return target


def _fill(a: Array, value: Any) -> Any:
    cut = slabs(a) if a.dtype.char in ORDERED and np.ndim(value) == 0 else None
    if cut is None:
        return NotImplemented
    a[_first(a)].fill(value)  # which raises what is to be raised before threads are called
    _each(cut, lambda index: a[index].fill(value))
    return None


def _copy(a: Array, order: Any = "C") -> Any:
    return _converted(a, a.dtype, order, "unsafe")


def _copy_of(a: Any, order: Any = "K", **others: Any) -> Any:
    return NotImplemented if others or type(a) is not np.ndarray else _copy(a, order)


def _astype(
    a: Array, dtype: Any, order: Any = "K", casting: Any = "unsafe", *_: Any, copy: Any = True
) -> Any:
    kind: np.dtype[Any] = np.dtype(dtype)
    if _ or (not copy and kind == a.dtype):
        return NotImplemented
    return _converted(a, kind, order, casting)


def _converted(a: Array, kind: np.dtype[Any], order: Any, casting: Any) -> Any:
    cut = slabs(a) if _converts(a.dtype, kind, casting) and order in ("K", "C", "A", "F") else None
    if cut is None:
        return NotImplemented
    target = np.empty_like(a, dtype=kind, order=order)
    _each(cut, lambda index: np.copyto(target[index], a[index], casting=casting))
    return target


def _converts(source: np.dtype[Any], kind: np.dtype[Any], casting: Any) -> bool:
    """Whether elements are numbers, or stay as they are, and NumPy has nothing to say about it."""
    if source == kind:
        return source.char in ORDERED
    numbers = f"{INTEGERS}{FLOATS}e"
    return (
        source.char in numbers
        and kind.char in numbers
        and (source.kind != "c" or kind.kind == "c")
        and np.can_cast(source, kind, casting)
    )


def _copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> Any:
    if where is not True or type(dst) is not np.ndarray or type(src) is not np.ndarray:
        return NotImplemented
    if dst.shape != src.shape or np.may_share_memory(dst, src):
        return NotImplemented
    plain = dst.flags.writeable and _converts(src.dtype, dst.dtype, casting)
    cut = slabs(dst) if plain else None
    if cut is None:
        return NotImplemented
    _each(cut, lambda index: np.copyto(dst[index], src[index], casting=casting))
    return None


FUNCTIONS: dict[Callable[..., Any], Form] = {
    np.clip: _clip,
    np.round: _round,
    np.around: _round,
    np.copy: _copy_of,
    np.copyto: _copyto,
    np.ndarray.fill: _fill,
    np.ndarray.copy: _copy,
    np.ndarray.astype: _astype,
}

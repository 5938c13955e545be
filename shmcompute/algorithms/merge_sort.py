"""Sorting numbers: NumPy sorts a run for each worker, and all of them merge the runs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from shmcompute.algorithms.merging import Merge
from shmcompute.algorithms.parts import edges, run_parts, workers
from shmcompute.system.interrupts import call_uninterrupted
from shmcompute.typing import Array

BLOCK = 1 << 15  # elements that are copied, and looked at while they are in cache


class Runs(NamedTuple):
    """An array whose parts between `bounds` are sorted."""

    array: Array
    bounds: list[int]

    @property
    def parts(self) -> list[Array]:
        """The runs."""
        return [self.array[i:j] for i, j in zip(self.bounds[:-1], self.bounds[1:], strict=True)]


def mergeable(dtype: np.dtype[Any]) -> bool:
    """Whether these are numbers that machine code compares; float16 it doesn't know."""
    return dtype.kind in "biuf" and dtype.itemsize in (1, 2, 4, 8) and dtype.char != "e"


def merge_sort(source: Array, out: Array, *, stable: bool) -> bool:
    """Sort into `out`, which may be `source`; or leave it alone, and say so by False.

    It is left alone where only NumPy knows its order: where elements are equal but have other bits,
    -0.0 and 0.0 or several kinds of NaN, and the sort is not to be stable.
    """
    dtype = np.dtype(np.uint8) if source.dtype == bool else source.dtype.newbyteorder("=")
    runs = Runs(np.empty(source.size, dtype), edges(source.size, workers()))
    minus_zero = _fill(runs, source)
    alike = not (minus_zero and (~np.signbit(source[source == 0])).any())
    if alike:
        # Integers that are equal are one: so the quickest way will do, small ones being counted.
        _sort(runs, "stable" if dtype.itemsize < 4 else None)
        alike = dtype.kind != "f" or _alike(runs, stable)
        if stable and not alike:
            _fill(runs, source)
    if not (alike or stable):
        return False
    if not alike:
        _sort(runs, "stable")
    # An interrupt half way would lose the elements that were not written yet.
    call_uninterrupted(lambda: _write(runs, out))
    return True


def _fill(runs: Runs, source: Array) -> bool:
    """Copy an array; whether it holds a -0.0.

    It is looked at before it is sorted: NumPy's vectorised sort takes one zero for the other.
    """
    found: list[bool] = []

    def fill(number: int) -> None:
        part, origin = runs.parts[number], source[runs.bounds[number] : runs.bounds[number + 1]]
        for i in range(0, part.size, BLOCK):
            part[i : i + BLOCK] = origin[i : i + BLOCK]
            found.extend([True] * _has_minus_zero(part[i : i + BLOCK]))

    run_parts(fill, len(runs.bounds) - 1)
    return bool(found)


def _has_minus_zero(block: Array) -> bool:
    if block.dtype.kind != "f":
        return False
    sign = 1 << (8 * block.itemsize - 1)
    return bool((block.view(f"u{block.itemsize}") == sign).any())


def _sort(runs: Runs, kind: Any) -> None:
    run_parts(lambda number: runs.parts[number].sort(kind=kind), len(runs.bounds) - 1)


def _alike(runs: Runs, stable: bool) -> bool:
    """Whether all NaN have the same bits, as NumPy's vectorised sort writes them.

    A stable one keeps those that there were.
    """
    others = [part[_numbers(part) :] for part in runs.parts]
    if stable:
        return not any(part.size for part in others)
    bits = [part.view(f"u{part.itemsize}") for part in others if part.size]
    return len({int(extreme) for part in bits for extreme in (part.min(), part.max())}) < 2


def _numbers(part: Array) -> int:
    """How many elements come before NaN."""
    return int(np.searchsorted(part, np.nan)) if part.dtype.kind == "f" else part.size


def _write(runs: Runs, out: Array) -> None:
    """Merge runs into an array of any strides and byte order, NaN as they come."""
    plain = out.flags.carray and out.dtype.isnative
    target = out.view(runs.array.dtype) if plain else np.empty_like(runs.array)
    starts = runs.bounds[:-1]
    ends = [start + _numbers(part) for start, part in zip(starts, runs.parts, strict=True)]
    merge = Merge(runs.array, list(zip(starts, ends, strict=True)))
    run_parts(lambda number: merge.write(number, target), merge.stretches)
    others = [runs.array[i:j] for i, j in zip(ends, runs.bounds[1:], strict=True)]
    target[merge.size :] = np.concatenate(others)
    if not plain:
        out[...] = target.view(out.dtype.newbyteorder("="))

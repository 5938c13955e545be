"""Merging of sorted runs, jitted and without the GIL.

What is to stand in one stretch of the merged array is known without merging what comes before it:
the runs are cut where that stretch begins and where it ends. So threads merge stretches apart.
(For two runs: Odeh, Green, Mwassi, Shmueli, Birk, "Merge Path", 2012.)

Which of two elements is less is as good as random, and a processor that guesses wrongly waits a
dozen cycles. So the merge has no branch to guess: it computes from the comparison which element is
taken. Each step then waits for the one before it, so four merges take turns in one loop.
"""

# Numba knows `min` of two.
# ruff: noqa: PLW3301

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shmcompute.system.atomic_words import jitted
from shmcompute.typing import Array

STRETCH = 1 << 15  # elements: with what is merged into them they stay in a core's caches

_index = np.uint64  # what is unsigned is not looked at for negative indices


@jitted
def _place(a: Any, start: int, stop: int, value: Any, after: bool) -> Any:
    """Where `value` goes within a sorted part of `a`: before its equals, or after them."""
    while start < stop:
        middle = (start + stop) >> 1
        if a[middle] < value or (after and not value < a[middle]):
            start = middle + 1
        else:
            stop = middle
    return start


@jitted
def cut(  # noqa: C901  # in parts it would take longer to compile
    a: Any, starts: Any, stops: Any, rank: int, low: Any, high: Any
) -> None:
    """Find where to cut sorted runs of `a` so that `rank` elements of their merge lie before.

    Equal elements are ordered by run. The middle of the longest run in doubt is looked up in all
    others: whichever side of it the cut is, half of that run is in doubt no more.

    Parameters
    ----------
    starts, stops : ndarray of int
        The runs: a[starts[0]:stops[0]] and so on.
    low : ndarray of int
        Is set to where they are cut.
    high : ndarray of int
        Room to work in.
    """
    for run in range(starts.size):
        low[run], high[run] = starts[run], stops[run]
    while True:
        longest = 0
        for run in range(starts.size):
            if high[run] - low[run] > high[longest] - low[longest]:
                longest = run
        middle = (low[longest] + high[longest]) >> 1
        if middle == high[longest]:
            return
        before = middle - starts[longest]
        for run in range(starts.size):
            if run != longest:
                before += _place(a, low[run], high[run], a[middle], run < longest) - starts[run]
        for run in range(starts.size):
            place = middle
            if run != longest:
                place = _place(a, low[run], high[run], a[middle], run < longest)
            if before >= rank:
                high[run] = place
            else:
                low[run] = place + 1 if run == longest else place


@jitted
def _merge_rest(a: Any, i: Any, in_a: Any, b: Any, j: Any, in_b: Any, out: Any, k: Any) -> None:
    """Merge two parts of sorted arrays, those of `a` first where elements are equal."""
    one = _index(1)
    while i < in_a or j < in_b:
        if j == in_b or (i < in_a and not b[j] < a[i]):
            out[k] = a[i]
            i += one
        else:
            out[k] = b[j]
            j += one
        k += one


@jitted
def cut_pair(a: Any, i: int, in_a: int, b: Any, j: int, in_b: int, rank: int) -> Any:
    """Where to cut two parts of sorted arrays so that `rank` elements of them lie before."""
    low, high = max(0, rank - (in_b - j)), min(rank, in_a - i)
    while low < high:
        middle = (low + high) >> 1
        if b[j + rank - middle - 1] < a[i + middle]:
            high = middle
        else:
            low = middle + 1
    return _index(i + low), _index(j + rank - low)


@jitted
def _take(a: Any, p: Any, b: Any, q: Any, out: Any, k: Any) -> Any:
    """Move the lesser of two elements, of equal ones the first; where to go on. No branch."""
    x, y = a[p], b[q]
    later = _index(y < x)
    out[k] = y if y < x else x
    return p + _index(1) - later, q + later, k + _index(1)


@jitted
def merge(a: Any, i: int, in_a: int, b: Any, j: int, in_b: int, out: Any, at: int) -> None:
    """Merge a[i:in_a] and b[j:in_b] into out[at:], the four quarters of it by turns."""
    quarter = (in_a - i + in_b - j) >> 2
    p0, q0 = _index(i), _index(j)
    i1, j1 = cut_pair(a, i, in_a, b, j, in_b, quarter)
    i2, j2 = cut_pair(a, i, in_a, b, j, in_b, 2 * quarter)
    i3, j3 = cut_pair(a, i, in_a, b, j, in_b, 3 * quarter)
    p1, q1, p2, q2, p3, q3 = i1, j1, i2, j2, i3, j3
    i4, j4 = _index(in_a), _index(in_b)
    k0, step = _index(at), _index(quarter)
    k1, k2, k3 = k0 + step, k0 + step + step, k0 + step + step + step
    while True:
        first = min(min(i1 - p0, j1 - q0), min(i2 - p1, j2 - q1))
        left = min(first, min(min(i3 - p2, j3 - q2), min(i4 - p3, j4 - q3)))
        if left == _index(0):  # one of the eight has ended
            break
        for _ in range(left):
            p0, q0, k0 = _take(a, p0, b, q0, out, k0)
            p1, q1, k1 = _take(a, p1, b, q1, out, k1)
            p2, q2, k2 = _take(a, p2, b, q2, out, k2)
            p3, q3, k3 = _take(a, p3, b, q3, out, k3)
    _merge_rest(a, p0, i1, b, q0, j1, out, k0)
    _merge_rest(a, p1, i2, b, q1, j2, out, k1)
    _merge_rest(a, p2, i3, b, q2, j3, out, k2)
    _merge_rest(a, p3, i4, b, q3, j4, out, k3)


class Merge:
    """The merge of sorted runs of an array, to be written stretch by stretch, by several threads.

    Parameters
    ----------
    a : ndarray
        Integers or floats, contiguous.
    runs : sequence of (start, stop)
        Which parts of it are sorted. They hold no NaN, which is neither less nor more.
    """

    def __init__(self, a: Array, runs: Sequence[tuple[int, int]]) -> None:
        self._a = a
        self._starts, self._stops = np.array(runs, np.int64).T.copy()
        self.size = int((self._stops - self._starts).sum())
        # Compiled here, in the thread that called, rather than in all others.
        self._cut(0)
        merge(a, 0, 0, a, 0, 0, a, 0)

    @property
    def stretches(self) -> int:
        """How many there are."""
        return -(-self.size // STRETCH)

    def write(self, number: int, out: Array) -> None:
        """Write one of them to its place in `out`."""
        first = number * STRETCH
        last = min(first + STRETCH, self.size)
        runs = list(zip(self._cut(first), self._cut(last), strict=True))
        source = self._a
        while len(runs) > 2:
            source, runs = _merge_pairs(source, runs, last - first)
        (i, in_a), (j, in_b) = runs[0], runs[-1] if len(runs) == 2 else (0, 0)
        merge(source, i, in_a, source, j, in_b, out, first)

    def _cut(self, rank: int) -> list[int]:
        if len(self._starts) == 2:  # the usual case, and half of the compiling
            (i, j), (in_a, in_b) = self._starts, self._stops
            return list(map(int, cut_pair(self._a, i, in_a, self._a, j, in_b, rank)))
        places = np.empty_like(self._starts)
        cut(self._a, self._starts, self._stops, rank, places, np.empty_like(places))
        return list(map(int, places))


def _merge_pairs(
    source: Array, runs: list[tuple[int, int]], size: int
) -> tuple[Array, list[tuple[int, int]]]:
    """Half as many runs, in a small array."""
    merged, target, at = [], np.empty(size, source.dtype), 0
    for pair in range(0, len(runs), 2):
        (i, in_a), (j, in_b) = runs[pair], (*runs[pair + 1 : pair + 2], (0, 0))[0]
        merge(source, i, in_a, source, j, in_b, target, at)
        merged.append((at, at + in_a - i + in_b - j))
        at = merged[-1][1]
    return target, merged

"""Counting elements in bins, jitted and without the GIL.

Each part of an array has bins of its own, so no element costs an atomic operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shmcompute.system.atomic_words import jitted

_index = np.uint64  # what is unsigned is not looked at for negative indices


@jitted
def count(a: Any, counts: Any) -> None:
    """Count integers, each in its own bin."""
    for i in range(a.size):
        counts[_index(a[i])] += 1


@jitted
def extremes(a: Any) -> Any:
    """The least and the greatest; by itself, for LLVM to make vectors of its loop."""
    low = high = a[0]
    for i in range(a.size):
        low = min(low, a[i])
        high = max(high, a[i])
    return low, high


@jitted
def count_until(a: Any, counts: Any, block: Any) -> Any:
    """Count integers, block by block, up to the first that has one without a bin.

    Returns how many are counted, and the least and the greatest of that block. So memory is read
    once: the block that was looked at is in the cache when it is counted.
    """
    for first in range(0, a.size, block):
        part = a[first : first + block]
        low, high = extremes(part)
        if low < 0 or high >= counts.size:
            return first, low, high
        count(part, counts)
    return a.size, a[0], a[0]


@jitted
def add_up(a: Any, weights: Any, sums: Any) -> None:
    """Add weights to the bins of integers."""
    for i in range(a.size):
        sums[_index(a[i])] += weights[i]


BLOCK = 512  # elements whose bins are computed together
FEW = 1 << 13  # elements of doubtful blocks that say nothing about the rest


@jitted
def place(a: Any, first: Any, scale: Any, margin: Any, bins: Any, places: Any) -> Any:
    """The bin of each number, and whether all are beyond doubt; by itself, for LLVM's vectors.

    In doubt is what is so near to an edge that roundings decide, or outside, or no number.
    """
    doubts = 0
    for i in range(a.size):
        exact = (a[i] - first) * scale
        inside = (exact >= 0.0) & (exact < bins)
        at = np.int32(exact if inside else 0.0)  # LLVM says nothing of numbers that do not fit
        rest = exact - at
        doubts += not inside & (rest > margin) & (rest < 1.0 - margin)
        places[i] = at
    return doubts == 0


@jitted
def count_even_blocks(a: Any, edges: Any, width: Any, bins: Any, margin: Any, counts: Any) -> None:
    """Count numbers in bins of equal width, block by block; `count_even` counts the doubtful.

    Parameters
    ----------
    margin : float
        What roundings of places and edges come to, in widths of a bin.
    """
    places, others = np.empty(BLOCK, np.int32), np.zeros(counts.size, np.int64)
    first, scale = np.float64(edges[0]), np.float64(bins) / np.float64(width)
    doubtful = 0
    for start in range(0, a.size, BLOCK):
        if doubtful * BLOCK > max(start >> 1, FEW):  # whole numbers, perhaps, and edges like them
            count_even(a[start:], edges, width, bins, counts)
            break
        part = a[start : start + BLOCK]
        if not place(part, first, scale, margin, np.float64(bins), places):
            count_even(part, edges, width, bins, counts)
            doubtful += 1
            continue
        for i in range(0, part.size - 1, 2):  # by turns: an element need not wait for the last
            counts[np.uint32(places[i])] += 1
            others[np.uint32(places[i + 1])] += 1
        if part.size % 2:
            counts[np.uint32(places[part.size - 1])] += 1
    for i in range(counts.size):
        counts[i] += others[i]


@jitted
def count_even(a: Any, edges: Any, width: Any, bins: Any, counts: Any) -> None:
    """Count numbers in bins of equal width, as `numpy.histogram` does, the last edge included.

    `width` is that of all bins, and `bins` their number, of the type of the edges. A bin is
    computed, and then corrected by a comparison with its edges, for quotients are rounded.
    """
    final = np.int64(edges.size - 2)
    first, last, nothing = edges[0], edges[edges.size - 1], edges[0] - edges[0]
    for i in range(a.size):
        x = a[i] + nothing  # of the type of the edges
        if first <= x <= last:  # not NaN
            at = min(np.int64((x - first) / width * bins), final)
            if x < edges[_index(at)]:
                at -= 1
            if x >= edges[_index(at + 1)] and at != final:
                at += 1
            counts[_index(at)] += 1

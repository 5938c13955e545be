"""Dealing elements into buckets by splitters, jitted and without the GIL."""

from __future__ import annotations

from typing import Any

import numpy as np

from shmcompute.system.atomic_words import jitted

BLOCK = 1024  # elements that are looked up together

_index = np.uint64  # what is unsigned is not looked at for negative indices


@jitted
def classify(a: Any, splitters: Any, found: Any, buckets: Any, counts: Any) -> None:
    """Set the bucket of each element: how many splitters it is not less than. Count them, too.

    NaN is less than nothing, so it comes to the last bucket. There is a splitter at least, and it
    is no NaN. A processor can't guess the way of one element through a search; so a block of them
    goes through it together, step by step, and each step is without branches. `found` is room for a
    block.
    """
    start, end = _index(0), _index(a.size)
    while start < end:
        size = min(_index(found.size), end - start)
        for i in range(size):
            found[i] = 0
        left = _index(splitters.size)
        while left > _index(0):
            half = max(left >> _index(1), _index(1))
            for i in range(size):
                at = found[i]
                less = a[start + i] < splitters[at + half - _index(1)]
                found[i] = at if less else at + half
            left -= half
        for i in range(size):
            buckets[start + i] = found[i]
            counts[found[i]] += 1
        start += size


@jitted
def deal(buckets: Any, first: int, places: Any, out: Any) -> None:
    """Write the index of each element, counted from `first`, to the next place of its bucket."""
    for i in range(buckets.size):
        bucket = buckets[i]
        out[_index(places[bucket])] = first + i
        places[bucket] += 1

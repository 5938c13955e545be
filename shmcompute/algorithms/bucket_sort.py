"""Sorting anything that NumPy sorts: elements are dealt into buckets, and NumPy sorts each bucket.

Splitters from a sample say what belongs into which bucket. Equal elements come into one bucket, in
the order in which they were; so what is stable for NumPy is stable here. Number and content of the
buckets depend on the elements alone: any number of workers gives the same bits.

A bucket stays in a core's caches, which is why an argsort is quicker this way with one worker, too.
(Sample sort: Frazer, McKellar, 1970.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from shmcompute.algorithms.bucketing import BLOCK, classify, deal
from shmcompute.algorithms.merge_sort import mergeable
from shmcompute.algorithms.parts import edges, run_parts, workers
from shmcompute.system.interrupts import call_uninterrupted
from shmcompute.typing import Array

MOST = 256  # buckets: their number is a byte
ELEMENTS = 1 << 12  # of a bucket, at least
SAMPLES = 16  # for each bucket
BYTES = 1 << 17  # that are looked up at once, where NumPy does it


def bucketable(dtype: np.dtype[Any]) -> bool:
    """Whether NumPy compares these without the GIL; not long doubles, which have bytes to spare."""
    return dtype.kind in "biufcMmSU" and dtype.char not in "gG" and dtype.itemsize > 0


class Buckets:
    """The elements of an array, one bucket after another, each in the order in which they were.

    Attributes
    ----------
    count : int
    bounds : list of int
        Where each bucket begins, and where the last one ends.
    """

    def __init__(self, source: Array) -> None:
        self._source = source.view(np.uint8) if source.dtype == bool else source
        self._splitters = _splitters(self._source)
        self._jitted = mergeable(self._source.dtype) and self._splitters.size > 0
        self.count = self._splitters.size + 1
        if self._jitted:  # compiled here, in the thread that called, rather than in all others
            self._classify(slice(0), np.empty(0, np.uint8), np.zeros(1, np.int64))
        self.bounds, self._order = self._deal(edges(source.size, workers()))

    def _deal(self, parts: list[int]) -> tuple[list[int], Array]:
        """Where buckets begin, and the indices of elements in their order."""
        numbers = np.empty(self._source.size, np.uint8)
        counts = np.zeros((len(parts) - 1, self.count), np.int64)
        order = np.empty(self._source.size, np.intp)

        def classify_part(number: int) -> None:
            part = slice(parts[number], parts[number + 1])
            self._classify(part, numbers[part], counts[number])

        run_parts(classify_part, len(counts))
        ends = np.cumsum(counts.T).reshape(self.count, len(counts))
        places = np.ascontiguousarray((ends - counts.T).T)
        deal(numbers[:0], 0, places[0], order)  # compiled

        def deal_part(number: int) -> None:
            deal(numbers[parts[number] : parts[number + 1]], parts[number], places[number], order)

        run_parts(deal_part, len(counts))
        return [0, *ends[:, -1].tolist()], order

    def _classify(self, part: slice, numbers: Array, counts: Array) -> None:
        """Set the bucket of each element of a part, and count them."""
        elements = self._source[part]
        if self._jitted:
            plain = np.ascontiguousarray(elements, self._splitters.dtype)
            classify(plain, self._splitters, np.empty(BLOCK, np.uint64), numbers, counts)
            return
        step = max(1, BYTES // elements.itemsize)
        for i in range(0, elements.size, step):
            block = elements[i : i + step].astype(self._splitters.dtype)
            numbers[i : i + step] = np.searchsorted(self._splitters, block, "right")
        counts += np.bincount(numbers, minlength=counts.size)

    def indices(self, number: int) -> Array:
        """Where the elements of a bucket are in the array, ascending."""
        return self._order[self.bounds[number] : self.bounds[number + 1]]


def _splitters(source: Array) -> Array:
    """From a sample that depends on the number of elements alone."""
    count = min(MOST, source.size // ELEMENTS)
    chosen = np.random.default_rng(0).integers(0, source.size, SAMPLES * count)
    sample = np.sort(source[chosen].astype(source.dtype.newbyteorder("=")))
    splitters = sample[SAMPLES::SAMPLES]
    return np.ascontiguousarray(splitters[splitters == splitters])  # noqa: PLR0124  # not NaN, NaT


def bucket_sort(source: Array, out: Array, kind: Any) -> None:
    """Sort into `out`, which may be `source`."""
    buckets = Buckets(source)
    copy = np.empty(source.size, source.dtype)

    def sort(number: int) -> None:
        bucket = copy[buckets.bounds[number] : buckets.bounds[number + 1]]
        bucket[:] = source[buckets.indices(number)]
        bucket.sort(kind=kind)

    run_parts(sort, buckets.count)
    parts = edges(source.size, workers())

    def write(number: int) -> None:
        out[parts[number] : parts[number + 1]] = copy[parts[number] : parts[number + 1]]

    # An interrupt half way would lose the elements that were not written yet.
    call_uninterrupted(lambda: run_parts(write, len(parts) - 1))


def bucket_argsort(source: Array, kind: Any) -> Array:
    """The indices that sort an array."""
    buckets = Buckets(source)
    out = np.empty(source.size, np.intp)

    def sort(number: int) -> None:
        indices = buckets.indices(number)
        place = slice(buckets.bounds[number], buckets.bounds[number + 1])
        out[place] = indices[np.argsort(source[indices], kind=kind)]

    run_parts(sort, buckets.count)
    return out

"""Topics that compare algorithms with NumPy's: each yields the outcomes of its promises."""

import numpy as np

import shmcompute as sc
from benchmarks.bars.turns import ratio, turns
from shmcompute.algorithms.histogram import bincount, histogram
from shmcompute.algorithms.order_statistics import median
from shmcompute.algorithms.sort import sort as sorted_copy
from shmcompute.algorithms.unique import unique

SIZE = 10**7
ROUNDS = 5


def _data(dtype):
    numbers = np.random.default_rng(0).random(SIZE)
    return numbers if dtype == "float64" else (numbers * 2**31).astype(dtype)


def _against(what, ours, numpys, bar, rounds=ROUNDS):
    found = turns({"numpy": numpys, "ours": ours}, rounds)
    yield ratio(f"{what} of 10^7 / NumPy", found, "ours", "numpy", bar)


def sort():
    """Into a new array, as `numpy.sort` does; and in place."""
    for dtype in ("float64", "int64", "int32"):
        data, copy = _data(dtype), np.empty(SIZE, dtype)
        yield from _against(
            f"np.sort {dtype}",
            lambda data=data: sorted_copy(data),
            lambda data=data: np.sort(data),
            0.65,
        )
        refill = lambda data=data, copy=copy: np.copyto(copy, data)  # noqa: E731
        ways = {"numpy": copy.sort, "ours": lambda copy=copy: sc.parallel_sort(copy)}
        found = turns(ways, ROUNDS, before=dict.fromkeys(ways, refill))
        yield ratio(f"{dtype} sort in place of 10^7 / NumPy", found, "ours", "numpy", 0.65)


def argsort():
    data = _data("float64")
    yield from _against(
        "argsort", lambda: sc.parallel_argsort(data), lambda: np.argsort(data), 0.65
    )


def select():
    """Medians, and what is there once."""
    data, numbers = _data("float64"), _data("int64")
    yield from _against("median", lambda: median(data), lambda: np.median(data), 0.65)
    # NumPy's takes some 15 s for these.
    ours, numpys = lambda: unique(numbers), lambda: np.unique(numbers)
    yield from _against("unique int64", ours, numpys, 0.65, rounds=1)


def counts():
    """Private bins."""
    data = _data("float64")
    numbers = (data * 1000).astype(np.int64)
    yield from _against(
        "histogram, 100 bins,", lambda: histogram(data, 100), lambda: np.histogram(data, 100), 0.2
    )
    yield from _against("bincount", lambda: bincount(numbers), lambda: np.bincount(numbers), 0.6)

"""A rolling mean: each element of the result sees the window of the series that ends there.

A window is a view, so nothing is copied: chunks of the windows overlap in memory, and may, since
they are only read.
"""

import numba as nb
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import shmcompute as sc

DAYS, WINDOW = 100_000, 30


@nb.njit
def mean_of_each(windows, means):
    for i in range(windows.shape[0]):
        means[i] = windows[i].mean()


prices = 100 + np.random.default_rng(2).normal(0, 1, DAYS).cumsum()
with (
    sc.SharedArray(prices) as series,
    sc.SharedArray.empty(DAYS - WINDOW + 1) as means,
):
    windows = sliding_window_view(series.array, WINDOW)
    sc.parallel_apply(mean_of_each, sc.read(windows), sc.write(means))
    sums = np.cumsum(np.concatenate([[0], prices]))
    expected = (sums[WINDOW:] - sums[:-WINDOW]) / WINDOW
    print(f"{len(means)} means of {WINDOW} days")
    print(f"as by differences of sums: {np.allclose(means.array, expected)}")

"""Wrap an array, hand it with a kernel to `parallel_apply`: every core works on it in place."""

import numba as nb
import numpy as np

import shmcompute as sc


@nb.njit
def decay(counts, halflife, hours):
    for i in range(counts.size):
        counts[i] *= 0.5 ** (hours / halflife)


activity = np.linspace(0, 1000, 4_000_001)

# Copied into shared memory once, here; the end of the block gives the memory back.
with sc.SharedArray(activity) as arr:
    sc.parallel_apply(decay, arr, 6.0, 12.0)

    # `.array` is the ndarray itself; a SharedArray also speaks NumPy without it.
    print("after two half-lives:", arr.array[::1_000_000])
    print("mean activity:", np.mean(arr), "of", activity.mean())
    assert np.allclose(arr, activity / 4)

    # What runs again and again is bound once.
    step = sc.plan(decay, arr, 6.0, 6.0)
    for _ in range(3):
        step()
    print("after five half-lives:", arr.array[::1_000_000])
    assert np.allclose(arr, activity / 32)

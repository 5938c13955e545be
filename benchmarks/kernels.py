"""The kernels, each in the forms that the peers need.

All write in place, treat elements (or frames) independently and can be run again and again without
overflow. Their steps round alike wherever they are compiled: results are compared bit for bit.
"""

import numba as nb
import numpy as np

ROUNDS = 40
GROWTH = 3.7  # of the logistic map: chaotic, so an error in the last bit would not stay there


# Halving is exact, so that a fused multiply-add, where a compiler chooses one, rounds the same.
def stream_numpy(x):
    np.multiply(x, 0.5, out=x)
    np.add(x, 1.0, out=x)


@nb.njit
def stream(x):
    for i in range(x.size):
        x[i] = x[i] * 0.5 + 1.0


@nb.njit(parallel=True)
def stream_prange(x):
    for i in nb.prange(x.size):
        x[i] = x[i] * 0.5 + 1.0


# No product is added to anything, so there is nothing to fuse.
def compute_numpy(x):
    for _ in range(ROUNDS):
        rest = 1.0 - x
        np.multiply(x, GROWTH, out=x)
        np.multiply(x, rest, out=x)


@nb.njit
def compute(x):
    for i in range(x.size):
        y = x[i]
        for _ in range(ROUNDS):
            y = (y * GROWTH) * (1.0 - y)
        x[i] = y


@nb.njit(parallel=True)
def compute_prange(x):
    for i in nb.prange(x.size):
        y = x[i]
        for _ in range(ROUNDS):
            y = (y * GROWTH) * (1.0 - y)
        x[i] = y


def normalise(frames):
    """Plain Python: a few calls of NumPy a frame, and between them the GIL is held."""
    for frame in frames:
        frame -= frame.mean()
        frame /= frame.std()

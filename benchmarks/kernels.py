"""The kernels; all write in place.

They treat elements (or rows) independently and can be run again and again without overflow. Their
steps round alike wherever they are compiled: results are compared bit for bit. A loop over
``nb.prange`` is an ordinary loop until it is compiled with ``parallel=True``, so that one text
serves all forms; see `serial`, `parallel` and `nogil`.
"""

import math

import numba as nb
import numpy as np

ROUNDS = 40
GROWTH = 3.7  # of the logistic map: chaotic, so an error in the last bit would not stay there


def parallel(kernel):
    """The same, run by Numba on all of its threads."""
    return nb.njit(parallel=True)(kernel.py_func)


def nogil(kernel):
    """The same, for threads; plain Python holds the GIL whatever one does."""
    return nb.njit(nogil=True)(kernel.py_func) if hasattr(kernel, "py_func") else kernel


# Scaling by a power of two is exact, so that a fused multiply-add, where a compiler chooses one,
# rounds the same.
@nb.njit
def stream(x):
    for i in nb.prange(x.size):
        x[i] = x[i] * 0.5 + 1.0


def stream_numpy(x):
    np.multiply(x, 0.5, out=x)
    np.add(x, 1.0, out=x)


@nb.njit
def quarter(x):
    for i in nb.prange(x.size):
        x[i] = x[i] * 0.25 + 0.3


@nb.njit
def double(x):
    for i in nb.prange(x.size):
        x[i] = x[i] * 2.0 - 0.7


@nb.njit
def halve(x):
    for i in nb.prange(x.size):
        x[i] = x[i] * 0.5 - 0.1


CHAIN = (stream, quarter, double, halve)
CHAIN_EXPRESSION = "(((x * 0.5 + 1.0) * 0.25 + 0.3) * 2.0 - 0.7) * 0.5 - 0.1"


@nb.njit
def chain_by_hand(x):
    for i in nb.prange(x.size):
        x[i] = (((x[i] * 0.5 + 1.0) * 0.25 + 0.3) * 2.0 - 0.7) * 0.5 - 0.1


def chain_numpy(x):
    for factor, summand in ((0.5, 1.0), (0.25, 0.3), (2.0, -0.7), (0.5, -0.1)):
        np.multiply(x, factor, out=x)
        np.add(x, summand, out=x)


# No product is added to anything, so there is nothing to fuse.
@nb.njit
def compute(x):
    for i in nb.prange(x.size):
        y = x[i]
        for _ in range(ROUNDS):
            y = (y * GROWTH) * (1.0 - y)
        x[i] = y


def compute_numpy(x):
    for _ in range(ROUNDS):
        rest = 1.0 - x
        np.multiply(x, GROWTH, out=x)
        np.multiply(x, rest, out=x)


def python(x):
    """The work of `compute` in plain Python, which holds the GIL all the time."""
    for i in range(len(x)):
        y = float(x[i])
        for _ in range(ROUNDS):
            y = (y * GROWTH) * (1.0 - y)
        x[i] = y


@nb.njit
def skewed(rows):
    """Rows of a cost and a value: the cost, which stays, says how many rounds the value takes."""
    for i in nb.prange(rows.shape[0]):
        y = rows[i, 1]
        for _ in range(int(rows[i, 0])):
            y = (y * GROWTH) * (1.0 - y)
        rows[i, 1] = y


def skewed_numpy(rows):
    costs = rows[:, 0]  # rising
    for done in range(math.ceil(costs[-1])):
        compute_once = rows[np.searchsorted(costs, done + 1) :, 1]
        rest = 1.0 - compute_once
        np.multiply(compute_once, GROWTH, out=compute_once)
        np.multiply(compute_once, rest, out=compute_once)


def fresh(number):
    """A kernel that nobody has seen before: `stream` with a summand of its own."""
    text = (
        f"def fresh(x):\n    for i in nb.prange(x.size):\n        x[i] = x[i] * 0.5 + {number}.0\n"
    )
    names = {"nb": nb, "__name__": __name__}
    exec(text, names)
    return names["fresh"]

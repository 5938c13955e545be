"""The demo's three kernels, and the same computations in plain NumPy.

Numba kernels use only ``+ - *``, which IEEE 754 rounds alike everywhere, in NumPy's order and
without fastmath; so results must agree to the last bit. (``sin`` or ``exp`` need not: Numba and
NumPy take them from different libraries.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from shmcompute.typing import Array

STEPS = 40  # of the logistic map
ENOUGH = 256  # MiB; the input of kernels that take long grows up to here


@numba.njit
def stream(x: Array) -> None:
    """Bound by memory: two operations for each element that is read and written."""
    for i in range(x.size):
        x[i] = x[i] * 3.0 + 1.0


@numba.njit
def logistic(x: Array) -> None:
    """Bound by the cores: many steps of the logistic map for each element."""
    for i in range(x.size):
        value = x[i]
        for _ in range(STEPS):
            value = 3.9 * value * (1.0 - value)
        x[i] = value


def collatz(x: Array) -> None:
    """Bound by the interpreter: the steps that each number takes down to 1, in plain Python."""
    for i, number in enumerate(x.tolist()):
        value, steps = number, 0
        while value > 1:
            value = 3 * value + 1 if value % 2 else value // 2
            steps += 1
        x[i] = steps


def stream_numpy(x: Array) -> Array:
    """What `stream` must give."""
    result: Array = x * 3.0 + 1.0
    return result


def logistic_numpy(x: Array) -> Array:
    """What `logistic` must give."""
    x, rest = x.copy(), np.empty_like(x)
    for _ in range(STEPS):
        np.subtract(1.0, x, out=rest)
        x *= 3.9
        x *= rest
    return x


def collatz_numpy(x: Array) -> Array:
    """What `collatz` must give: one step at a time, of all numbers that are not yet 1."""
    counts, active, values = np.zeros_like(x), np.flatnonzero(x > 1), x[x > 1]
    while values.size:
        values = np.where(values % 2, 3 * values + 1, values // 2)
        counts[active] += 1
        active, values = active[values > 1], values[values > 1]
    return counts


@dataclass(frozen=True)
class Trial:
    """A kernel, its input, and what it must give."""

    name: str
    about: str
    kernel: Any  # what plan() takes
    reference: Callable[[Array], Array]
    start: Callable[[int], Array]  # the input, for a size in MiB


TRIALS = (
    Trial(
        "stream",
        "Numba, bound by memory: x = x*3 + 1",
        stream,
        stream_numpy,
        lambda mib: np.arange(mib << 17) % 1000.0,
    ),
    Trial(
        "logistic",
        f"Numba, bound by the cores: {STEPS} times x = 3.9*x*(1 - x)",
        logistic,
        logistic_numpy,
        lambda mib: np.linspace(0.01, 0.99, min(mib, ENOUGH) << 14),
    ),
    Trial(
        "collatz",
        "plain Python, holds the GIL: steps of x = 3*x + 1 or x/2 down to 1",
        collatz,
        collatz_numpy,
        lambda mib: np.arange(1, 1 + min(mib, ENOUGH) * 200, dtype=np.int64),
    ),
)

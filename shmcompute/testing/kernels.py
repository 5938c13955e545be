"""Kernels of the conformance suite, one of each kind, in an importable module."""

from __future__ import annotations

import functools
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


@nb.njit
def affine(x: Array, a: float, b: float) -> None:
    for i in range(x.size):
        x[i] = x[i] * a + b


@nb.njit(nogil=True)
def affine_nogil(x: Array, a: float, b: float) -> None:
    for i in range(x.size):
        x[i] = x[i] * a + b


@nb.njit("void(float64[:], float64, float64)")
def affine_eager(x: Array, a: float, b: float) -> None:
    for i in range(x.size):
        x[i] = x[i] * a + b


@nb.njit(parallel=True)
def affine_prange(x: Array, a: float, b: float) -> None:
    for i in nb.prange(x.size):
        x[i] = x[i] * a + b


@nb.vectorize
def affine_ufunc(x: float, a: float, b: float) -> float:
    return x * a + b


@nb.vectorize(["float64(float64, float64, float64)"])
def affine_ufunc_eager(x: float, a: float, b: float) -> float:
    return x * a + b


@nb.guvectorize(["void(float64[:], float64, float64, float64[:])"], "(n),(),()->(n)")
def affine_gufunc(x: Array, a: float, b: float, out: Array) -> None:
    for i in range(x.size):
        out[i] = x[i] * a + b


@nb.njit
def scatter(targets: Array, out: Array, start: int) -> None:
    for i in range(targets.size):
        out[targets[i]] = start + i


@nb.njit
def fill_range(first: int, last: int, out: Array, value: float) -> None:
    for i in range(first, last):
        out[i] = value


def fill_range_python(first: int, last: int, out: Array, value: float) -> None:
    out[first:last] = value


@nb.njit
def draw(x: Array, rng: np.random.Generator) -> None:
    for i in range(x.size):
        x[i] = rng.random()


def draw_python(x: Array, rng: np.random.Generator) -> None:
    x[:] = rng.random(x.size)


@nb.njit
def extremes(x: Array) -> tuple[int, int, int]:
    low, high, total = x[0], x[0], 0
    for i in range(x.size):
        low, high, total = min(low, x[i]), max(high, x[i]), total + x[i]
    return low, high, total


def extremes_python(x: Array) -> tuple[int, int, int]:
    return x.min(), x.max(), x.sum()


@nb.njit
def sums(x: Array, out: Array, number: int, room: Array) -> None:
    room[: x.size] = x
    out[0] = room[: x.size].sum()
    out[1] = number


def sums_python(x: Array, out: Array, number: int, room: Array) -> None:
    room[: x.size] = x
    out[:] = room[: x.size].sum(), number


@nb.njit
def difference(out: Array, x: Array) -> None:
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = x[i + 3, j] - x[i, j] + x[i + 1, j]


def difference_python(out: Array, x: Array) -> None:
    out[:] = x[3:] - x[:-3] + x[1:-2]


def affine_python(x: Array, a: float, b: float) -> None:
    x *= a
    x += b


class Affine:
    """A callable that is no function."""

    def __call__(self, x: Array, a: float, b: float) -> None:
        affine_python(x, a, b)


affine_partial = functools.partial(affine_python, b=1.0)
affine_numba_partial = functools.partial(affine, b=1.0)  # type: ignore[call-arg]


@nb.njit
def add_offset(x: Array, start: int) -> None:
    for i in range(x.size):
        x[i] += start + i


@nb.njit
def weigh(out: Array, x: Array, table: Array) -> None:
    for i in range(x.shape[0]):
        out[i] = x[i] * table.sum()


@nb.njit
def fails(x: Array) -> None:
    if x[0] == 0:
        raise ValueError("zero")


def spill(x: Array) -> None:
    """Writes one element more than it was given."""
    np.lib.stride_tricks.as_strided(x, (x.size + 1,))[:] = 7


def divide(x: Array) -> None:  # noqa: ARG001
    1 / 0  # noqa: B018


def expected(x: ArrayLike, a: float = 3.0, b: float = 1.0) -> Array:
    """What every `affine` kernel makes of it."""
    return np.asarray(x) * a + b

"""Kernels and helpers that tests share: functions of an ordinary importable module."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import textwrap

import numba as nb
import numpy as np


@nb.njit
def affine(x, a, b):
    for i in range(x.size):
        x[i] = x[i] * a + b


@nb.njit(nogil=True)
def affine_nogil(x, a, b):
    for i in range(x.size):
        x[i] = x[i] * a + b


@nb.njit("void(float64[:], float64, float64)")
def affine_eager(x, a, b):
    for i in range(x.size):
        x[i] = x[i] * a + b


@nb.njit(parallel=True)
def affine_prange(x, a, b):
    for i in nb.prange(x.size):
        x[i] = x[i] * a + b


@nb.vectorize
def affine_ufunc(x, a, b):
    return x * a + b


@nb.vectorize(["float64(float64, float64, float64)"])
def affine_ufunc_eager(x, a, b):
    return x * a + b


@nb.guvectorize(["void(float64[:], float64, float64, float64[:])"], "(n),(),()->(n)")
def affine_gufunc(x, a, b, out):
    for i in range(x.size):
        out[i] = x[i] * a + b


def affine_python(x, a, b):
    x *= a
    x += b


class Affine:
    """A callable that is no function."""

    def __call__(self, x, a, b):
        affine_python(x, a, b)


affine_partial = functools.partial(affine_python, b=1.0)
affine_numba_partial = functools.partial(affine, b=1.0)


@nb.njit
def add_offset(x, start):
    for i in range(x.size):
        x[i] += start + i


@nb.njit
def weigh(out, x, table):
    for i in range(x.shape[0]):
        out[i] = x[i] * table.sum()


@nb.njit
def returns(x):
    return x.sum()


@nb.njit
def fails(x):
    if x[0] == 0:
        raise ValueError("zero")


def spill(x):
    """Writes one element more than it was given."""
    np.lib.stride_tricks.as_strided(x, (x.size + 1,))[:] = 7


def divide(x):
    1 / 0  # noqa: B018


def leave(x, code):
    os._exit(code)


def die(x, number):
    os.kill(os.getpid(), number)


def stop_forever(x):
    signal.pause()


def run(program, *args, check=True, python=sys.executable, **kwargs):
    """Run a program in a new interpreter; its text output."""
    # Threads that end before a fork are counted for a moment more, and 3.12 warns of them.
    quiet = "-W", "ignore:This process:DeprecationWarning"
    done = subprocess.run(
        [python, *quiet, "-c", textwrap.dedent(program), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        **kwargs,
    )
    if check:
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", done.stderr
    return done


def expected(x, a=3.0, b=1.0):
    return np.asarray(x) * a + b


class Half:
    """A callable that is no function, of one argument."""

    def __call__(self, x):
        x /= 2

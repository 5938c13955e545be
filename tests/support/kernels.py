"""Kernels and helpers that tests share: functions of an ordinary importable module."""

from __future__ import annotations

import atexit
import functools
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import leaks
import numba as nb
import numpy as np
import prepared


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


def run(program, *args, check=True, fresh="", python=sys.executable, **kwargs):
    """Run a program as ``python -c`` does; its text output.

    It runs in a child of the session's prepared process, unless `fresh` says why it needs an
    interpreter that has imported nothing.
    """
    program, args = textwrap.dedent(program), list(map(str, args))
    if fresh or python != sys.executable:
        command = [python, *prepared.QUIET, "-c", program, *args]
    else:
        command = server().command(program, args)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)
    if check:
        assert done.returncode == 0, done.stderr
        assert done.stderr == "", done.stderr
    return done


@functools.cache
def server():
    """The session's prepared process, started when a program first needs it."""
    with leaks.kept():
        started = prepared.Server(Path(tempfile.mkdtemp(prefix="shmcompute-tests-")))
    atexit.register(started.close)
    return started


def expected(x, a=3.0, b=1.0):
    return np.asarray(x) * a + b


class Half:
    """A callable that is no function, of one argument."""

    def __call__(self, x):
        x /= 2

"""Kernels and helpers that tests share: functions of an ordinary importable module."""

from __future__ import annotations

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
import prepared

from shmcompute.testing.kernels import (  # noqa: F401 (for tests to take from here)
    Affine,
    add_offset,
    affine,
    affine_eager,
    affine_gufunc,
    affine_nogil,
    affine_numba_partial,
    affine_partial,
    affine_prange,
    affine_python,
    affine_ufunc,
    affine_ufunc_eager,
    divide,
    expected,
    fails,
    spill,
    weigh,
)


@nb.njit
def returns(x):
    return x.sum()


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
    """The session's prepared process, started when a program first needs it; conftest closes it."""
    with leaks.kept():
        return prepared.Server(Path(tempfile.mkdtemp(prefix="shmcompute-tests-")))


class Half:
    """A callable that is no function, of one argument."""

    def __call__(self, x):
        x /= 2

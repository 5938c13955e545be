"""Tracebacks lead from the user's call to the user's code."""

from __future__ import annotations

import traceback
from functools import partial

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.system import cores
from shmcompute.system.tracebacks import shorten

MOST = 6  # frames of ours and of the standard library's, here and in the worker


@nb.njit
def _inner(x):
    if x[0] >= 0:
        raise ValueError("told by a jitted kernel")


@nb.njit
def _jitted(x):
    _inner(x)


@nb.njit
def _divides(x):
    x[0] = 1 // (x.size - x.size)


def _python(x):
    raise ValueError("told by a kernel")


def _lines(error):
    """The functions that its traceback names, and those of the worker's."""
    remote = str(error.__cause__) if error.__cause__ is not None else ""
    here = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return here + [line.split(" in ")[-1] for line in remote.splitlines() if "  File" in line]


@pytest.mark.parametrize("kernel", [_jitted, _divides, _python])
def test_a_kernels_traceback_is_short_and_names_its_line(kernel, any_pool):
    with sc.SharedArray(np.arange(4.0)) as arr:
        # Numba keeps what it passed to a function that raises: no segment, where Python calls it.
        x = arr if any_pool.backend == "processes" else np.arange(4.0)
        step = sc.plan(kernel, x, pool=any_pool)
        ways = [lambda: sc.parallel_apply(kernel, x, pool=any_pool), step]
        if kernel is _python:
            ways += [lambda: sc.parallel_apply(kernel, x, pool=any_pool, debug=True)]
        for call in ways:
            with pytest.raises((ValueError, ZeroDivisionError)) as caught:
                call()
            names = _lines(caught.value)
            assert len(names) <= MOST
            last = {_jitted: "_inner", _python: "_python"}.get(kernel)
            assert last is None or last in names
            del caught


@nb.njit
def _jitted_total(x):
    _inner(x)
    return x[0]


def _combines(x, y):
    raise ValueError("told by a kernel")


def test_an_algorithms_traceback_is_short_too(any_pool):
    kernels = [_python, _jitted_total] if any_pool.backend == "processes" else [_python]
    with sc.SharedArray(np.arange(1e5)) as arr:
        calls = [
            *(partial(sc.parallel_reduce, one, arr, combine=np.add) for one in kernels),
            partial(sc.parallel_reduce, np.sum, sc.read(arr), combine=_combines),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="told by a") as caught:
                call(pool=any_pool)
            assert len(_lines(caught.value)) <= MOST
            del caught


def test_a_tasks_traceback_is_short_too(any_pool):
    for call in (
        lambda: any_pool.submit(_python, 1).result(),
        lambda: list(any_pool.map(_python, [1, 2])),
        lambda: list(any_pool.imap(_python, [1, 2])),
        lambda: list(any_pool.imap_unordered(_python, [1, 2])),
    ):
        with pytest.raises(ValueError, match="told by a kernel") as caught:
            call()
        names = _lines(caught.value)
        assert "_python" in names
        assert len([name for name in names if name not in ("<lambda>", "_python")]) <= MOST + 1


def test_a_fault_of_our_own_keeps_its_traceback():
    try:
        cores.pin(0, "no number")
    except TypeError as error:
        shorten(error)
        names = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        assert names[0] == __file__
        assert names[-1] == cores.__file__
    else:
        raise AssertionError("a number was needed")

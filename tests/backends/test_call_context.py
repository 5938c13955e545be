"""What rules arithmetic and warnings where a call is made rules its kernels and tasks, too."""

from __future__ import annotations

import contextvars
import decimal
import warnings

import numpy as np
import pytest

import shmcompute as sc


def _divide(x):
    x[...] = 1.0 / x


def _precision(x):
    x[...] = decimal.getcontext().prec


def _warn(x):
    warnings.warn("told", RuntimeWarning, stacklevel=1)
    x[...] = 1


def _settings():
    return np.geterr()["divide"], decimal.getcontext().prec


def test_the_error_state_of_numpy_goes_along(any_pool):
    """Also where the same call, or the same plan, is run under another one."""
    with sc.SharedArray(np.zeros(4)) as arr:
        for kernel in (_divide, np.reciprocal):
            step = sc.plan(kernel, arr, pool=any_pool)
            for call in (lambda k=kernel: sc.parallel_apply(k, arr, pool=any_pool), step):
                for _ in range(2):
                    arr[...] = 0
                    with np.errstate(divide="ignore"):
                        call()
                    assert np.isinf(arr.array).all()
                    arr[...] = 0
                    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
                        call()


def test_what_is_called_for_an_error_goes_along(pools):
    def note(kind, flag):
        raise LookupError(kind)

    with np.errstate(divide="call", call=note), sc.SharedArray(np.zeros(4)) as arr:
        for backend in ("threads", "fork"):
            with pytest.raises(LookupError, match="divide by zero"):
                sc.parallel_apply(_divide, arr, pool=pools[backend])


def test_tasks_have_the_settings_of_who_submits_them(any_pool):
    with np.errstate(divide="raise"), decimal.localcontext() as exact:
        exact.prec = 5
        submitted = any_pool.submit(_settings)
        assert list(any_pool.map(_settings_of, range(3))) == [("raise", 5)] * 3
    assert submitted.result() == ("raise", 5)
    assert any_pool.submit(_settings).result() == _settings()


def _settings_of(_):
    return _settings()


def test_the_precision_of_decimals_goes_along(any_pool):
    with sc.SharedArray(np.zeros(4)) as arr:
        for precision in (5, 50, 5):
            with decimal.localcontext() as exact:
                exact.prec = precision
                sc.parallel_apply(_precision, arr, pool=any_pool)
            np.testing.assert_array_equal(arr.array, precision)


def test_the_filters_of_warnings_go_along(any_pool):
    with sc.SharedArray(np.zeros(4)) as arr:
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sc.parallel_apply(_warn, arr, pool=any_pool)
                warnings.simplefilter("error")
                with pytest.raises(RuntimeWarning, match="told"):
                    sc.parallel_apply(_warn, arr, pool=any_pool)


LEVEL = contextvars.ContextVar("level", default=0)


def test_threads_see_the_callers_context_variables(pools):
    def level(x):
        x[...] = LEVEL.get()

    token = LEVEL.set(7)
    try:
        x = np.zeros(4)
        sc.parallel_apply(level, x, chunksize=1, pool=pools["threads"])
        assert pools["threads"].submit(LEVEL.get).result() == 7
    finally:
        LEVEL.reset(token)
    np.testing.assert_array_equal(x, 7)

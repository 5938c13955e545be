"""Medians and quantiles: NumPy's own to the bit, found by a sample and one pass."""

from __future__ import annotations

import numpy as np
import pytest
from common_threads import threads

import shmcompute as sc
from shmcompute.algorithms import order_statistics as module
from shmcompute.algorithms.order_statistics import median, percentile, quantile

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i1", "u1", "u8", ">f8"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "SIZE", 1000)
    monkeypatch.setattr(module, "BLOCK", 64)
    monkeypatch.setattr(module, "SAMPLE", 400)
    monkeypatch.setattr(module, "MARGIN", 40)


def same(found, expected):
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes() or np.isnan(expected).any()
    np.testing.assert_array_equal(found, expected)


def data(dtype, size, seed=0):
    return np.abs(np.random.default_rng(seed).normal(size=size) * 40).astype(dtype)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workers", [1, 3])
def test_they_are_numpys(dtype, workers):
    with threads(workers):
        for size in (1000, 1001, 4096, 5003):
            x = data(dtype, size, size)
            same(median(x), np.median(x))
            for q in (
                0,
                1,
                0.5,
                0.123,
                1.0,
                [0.1, 0.9],
                np.array([0.0, 0.3, 1.0]),
                np.float32(0.3),
                [],
            ):
                same(quantile(x, q), np.quantile(x, q))
            for q in (0, 100, 50, 12.3, [10, 90.5], np.float64(33)):
                same(percentile(x, q), np.percentile(x, q))


@pytest.mark.parametrize("method", ["lower", "nearest", "median_unbiased", "inverted_cdf"])
def test_other_methods_are_numpys(method):
    x = data("f8", 2000).reshape(2, 1000)
    for axis in (None, 0, 1):
        same(quantile(x, 0.3, axis, method=method), np.quantile(x, 0.3, axis, method=method))
        q = [30, 40]
        same(percentile(x, q, axis, method=method), np.percentile(x, q, axis, method=method))


@pytest.mark.parametrize("dtype", [">f8", ">i4", ">f4"])
def test_rows_of_other_byte_order_are_numpys(dtype):
    x = data("i4", 2000).astype(dtype).reshape(2, 1000)
    for method in ("linear", "lower"):
        same(quantile(x, 0.3, 0, method=method), np.quantile(x, 0.3, 0, method=method))
        same(
            quantile(x, [0.3, 0.5], 0, method=method), np.quantile(x, [0.3, 0.5], 0, method=method)
        )
    same(median(x, 0), np.median(x, 0))


@pytest.mark.parametrize("shape", [(50, 40), (4, 5, 100), (1, 2000), (2000, 1)])
def test_along_any_axis(shape):
    x = data("f8", int(np.prod(shape))).reshape(shape)
    for axis in range(-x.ndim, x.ndim):
        for keepdims in (False, True):
            same(median(x, axis, keepdims=keepdims), np.median(x, axis, keepdims=keepdims))
            for q in (0.3, [0.2, 0.7]):
                expected = np.quantile(x, q, axis, keepdims=keepdims)
                same(quantile(x, q, axis, keepdims=keepdims), expected)
    same(median(x, keepdims=True), np.median(x, keepdims=True))
    same(quantile(x, [0.1, 0.2], keepdims=True), np.quantile(x, [0.1, 0.2], keepdims=True))
    same(median(x, (0, 1)), np.median(x, (0, 1)))


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_nan_infinities_and_zeros_are_as_numpy_has_them():
    x = data("f8", 3000)
    for value in (np.nan, np.inf, -np.inf, -0.0, 0.0):
        for share in (1, 20, 3000):
            given = x.copy()
            given[:share] = value
            same(median(given), np.median(given))
            same(quantile(given, [0.01, 0.7]), np.quantile(given, [0.01, 0.7]))
    mixed = np.random.default_rng(0).choice([-0.0, 0.0], 3001)
    same(median(mixed), np.median(mixed))


def test_what_the_sample_misleads_is_still_right():
    for x in (np.zeros(3000), np.arange(3000.0), np.arange(3000.0)[::-1].copy()):
        for margin in (0, 1, 40):
            module.MARGIN = margin  # the fixture puts it back
            same(median(x), np.median(x))
            same(quantile(x, 0.001), np.quantile(x, 0.001))


def test_bad_input_is_refused_in_numpys_words():
    x = data("f8", 2000)
    for call in (
        lambda f: f(np)(x, 1.5),
        lambda f: f(np)(x, -1),
        lambda f: f(np)(x, 0.5, method="bogus"),
        lambda f: f(np)(x, 0.5, axis=3),
        lambda f: f(np)(x, "a"),
    ):
        with pytest.raises(Exception) as expected:
            call(lambda module: np.quantile)
        with pytest.raises(expected.type):
            call(lambda module: quantile)


def test_shared_arrays_out_and_lists_do_as_well():
    x = data("f8", 2000)
    with sc.SharedArray(x) as arr:
        same(median(arr), np.median(x))
    out = np.zeros(())
    assert median(x, out=out) is out
    assert median([3, 1, 2]) == 2

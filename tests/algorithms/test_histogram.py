"""Histograms and bin counts: NumPy's own, to the bit where they are counts."""

from __future__ import annotations

import numpy as np
import pytest
from common_threads import threads

import shmcompute as sc
from shmcompute.algorithms import histogram as module
from shmcompute.algorithms.histogram import bincount, histogram

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i1", "u1", "u8", ">f8", "?"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "SIZE", 100)


def data(dtype, size=3000, seed=0):
    return (np.random.default_rng(seed).normal(size=size) * 40).astype(dtype)


def check(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore:Converting input from bool")
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
@pytest.mark.filterwarnings("ignore:invalid value encountered in divide")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("workers", [1, 3])
def test_it_is_numpys_histogram(dtype, workers):
    x = data(dtype)
    edges = np.array([-50, -10.5, 0, 3, 3, 60])
    with threads(workers):
        for bins, between in [
            (10, None),
            (1, None),
            (7, (-20, 20.5)),
            (100, (0.1, 9.7)),
            (edges, None),
        ]:
            for density in (None, True):
                check(histogram(x, bins, between, density), np.histogram(x, bins, between, density))


@pytest.mark.parametrize("bins", [1, 3, 10, 49, 1000])
def test_what_lies_on_an_edge_counts_where_numpy_counts_it(bins):
    x = np.repeat(np.linspace(0, 1, bins + 1), 30)
    for dtype in ("f8", "f4"):
        given = x.astype(dtype)
        for one in (given, np.nextafter(given, np.inf), np.nextafter(given, -np.inf)):
            check(histogram(one, bins), np.histogram(one, bins))


def test_strided_arrays_of_several_dimensions():
    x = data("f8", 4000).reshape(40, 100)
    for view in (x.T, x[::2, ::-3]):
        check(histogram(view, 20), np.histogram(view, 20))


@pytest.mark.parametrize("kind", ["f8", "f4", "i4", "c16"])
def test_weights_are_added_up_in_numpys_order(kind, monkeypatch):
    x = data("f8", 150_000)
    weights = data(kind, x.size, 1)
    found = set()
    for workers in (1, 2, 5):
        with threads(workers):
            counts, edges = histogram(x, 30, weights=weights)
            found.add(counts.tobytes())
    assert found == {np.histogram(x, 30, weights=weights)[0].tobytes()}


@pytest.mark.parametrize("bins", ["auto", "fd"])
def test_bins_by_name_are_numpys(bins):
    check(histogram(data("f8"), bins), np.histogram(data("f8"), bins))


@pytest.mark.parametrize(
    ("change", "keywords"),
    [
        (np.nan, {}),
        (np.inf, {}),
        (0, {"range": (3, 1)}),
        (0, {"range": (0, np.inf)}),
        (0, {"bins": 0}),
        (0, {"bins": -1}),
        (0, {"bins": [3, 1]}),
        (0, {"bins": 2.5}),
        (0, {"bins": [[1, 2]]}),
        (0, {"bins": "bogus"}),
        (0, {"weights": np.ones(3)}),
    ],
)
def test_bad_input_is_refused_in_numpys_words(change, keywords):
    x = data("f8")
    x[7] = change
    with pytest.raises((ValueError, TypeError)) as expected:
        np.histogram(x, **keywords)
    with pytest.raises(expected.type) as found:
        histogram(x, **keywords)
    assert str(found.value) == str(expected.value)


def test_what_is_outside_or_no_number_is_not_counted():
    x = data("f8")
    x[::5], x[1::5] = np.nan, np.inf
    check(histogram(x, 9, (-10, 10)), np.histogram(x, 9, (-10, 10)))
    x[:] = 3.5
    check(histogram(x), np.histogram(x))
    big = np.arange(2**62, 2**62 + 2**40, 2**30)
    check(histogram(big, 3), np.histogram(big, 3))


@pytest.mark.parametrize("dtype", ["i8", "i4", "u1", "u4", "i2", ">i4"])
@pytest.mark.parametrize("workers", [1, 3])
def test_it_is_numpys_bincount(dtype, workers):
    x = np.abs(data(dtype, 5000) % 100)
    weights = data("f8", 5000, 1)
    with threads(workers):
        for minlength in (0, 5, 300, 10**6):
            check([bincount(x, minlength=minlength)], [np.bincount(x, minlength=minlength)])
        check([bincount(x[::-2])], [np.bincount(x[::-2])])
        np.testing.assert_allclose(bincount(x, weights), np.bincount(x, weights), atol=1e-10)


def test_sums_of_weights_are_the_same_for_any_number_of_workers():
    x, weights = np.abs(data("i8", 5000) % 100), data("f8", 5000, 1)
    found = set()
    for workers in range(1, 8):
        with threads(workers):
            found.add(bincount(x, weights).tobytes())
    assert len(found) == 1


@pytest.mark.parametrize(
    "keywords",
    [
        {"x": np.full(200, -1)},
        {"x": np.ones(200)},
        {"x": np.ones((20, 20), int)},
        {"x": np.ones(200, int), "minlength": -1},
        {"x": np.ones(200, int), "minlength": 1.5},
        {"x": np.ones(200, int), "weights": np.ones(3)},
    ],
)
def test_bincount_refuses_what_numpy_refuses(keywords):
    x = keywords.pop("x")
    with pytest.raises((ValueError, TypeError)) as expected:
        np.bincount(x, **keywords)
    with pytest.raises(expected.type) as found:
        bincount(x, **keywords)
    assert str(found.value) == str(expected.value)


def test_shared_arrays_and_lists_do_as_well():
    x = data("f8")
    with sc.SharedArray(x) as arr, sc.SharedArray(np.abs(x).astype(int)) as numbers:
        check(histogram(arr), np.histogram(x))
        check([bincount(numbers)], [np.bincount(numbers.array)])
    check(histogram([1, 2, 2]), np.histogram([1, 2, 2]))
    check([bincount([1, 2, 2])], [np.bincount([1, 2, 2])])


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "u2"])
def test_places_beyond_doubt_are_numpys(dtype):
    """Whatever the scale is, how far from 0 the numbers lie, and how many of them lie on edges."""
    rng = np.random.default_rng(0)
    tested = 0
    for _ in range(150):
        scale = 10.0 ** rng.integers(-30, 30 if dtype[0] == "f" else 4)
        x = scale * (rng.random(3000) + rng.normal() * 10.0 ** rng.integers(-3, 8))
        x[rng.integers(0, 3000, rng.integers(1, 2000))] = rng.choice(x, 1)
        with np.errstate(all="ignore"):
            x = np.abs(x).astype(dtype) if dtype == "u2" else x.astype(dtype)
        bins = int(rng.choice([1, 2, 3, 10, 64, 100, 1000]))
        middle = np.sort(rng.choice(x, 2))
        between = (
            tuple(map(float, middle)) if rng.random() < 0.5 and middle[0] < middle[1] else None
        )
        try:
            expected = np.histogram(x, bins, between)
        except ValueError:  # too many bins for what lies between
            continue
        check(histogram(x, bins, between), expected)
        tested += 1
    assert tested > 75

"""Searching and choosing elements, and `unique`: NumPy's own results."""

from __future__ import annotations

import numpy as np
import pytest
from common_threads import threads

import shmcompute as sc
from shmcompute.algorithms import search, sort, unique
from shmcompute.algorithms.search import compress, flatnonzero, nonzero, searchsorted


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for module, name in [
        (search, "SIZE"),
        (search, "SEARCHES"),
        (sort, "SIZE"),
        (sort, "ROW"),
        (unique, "SIZE"),
    ]:
        monkeypatch.setattr(module, name, 100)
    monkeypatch.setattr("shmcompute.algorithms.bucket_sort.ELEMENTS", 32)


@pytest.fixture(params=[1, 3])
def workers(request):
    with threads(request.param):
        yield


def data(dtype, size=2000, seed=0):
    return np.random.default_rng(seed).integers(-30, 30, size).astype(dtype)


def check(found, expected):
    assert type(found) is type(expected)
    np.testing.assert_array_equal(found, expected, strict=True)


@pytest.mark.parametrize("dtype", ["f8", "i4", "u1", "c16", "M8[s]", "U3", ">i4", "O"])
def test_searchsorted(dtype, workers):
    table, values = np.sort(data(dtype, 70)), data(dtype).reshape(20, 100)
    for side in ("left", "right"):
        check(searchsorted(table, values, side), np.searchsorted(table, values, side))
        check(
            searchsorted(table, values[:, ::-3], side),
            np.searchsorted(table, values[:, ::-3], side),
        )
    shuffled = data(dtype, 70, 1)
    order = np.argsort(shuffled)
    check(
        searchsorted(shuffled, values, sorter=order),
        np.searchsorted(shuffled, values, sorter=order),
    )
    check(searchsorted(table, table[0]), np.searchsorted(table, table[0]))


def test_searching_dates_among_numbers_is_numpys_error(workers):
    with pytest.raises(TypeError) as ours:
        searchsorted(data("f8"), data("M8[s]"))
    with pytest.raises(TypeError) as theirs:
        np.searchsorted(data("f8"), data("M8[s]"))
    assert str(ours.value) == str(theirs.value)


def test_searchsorted_among_other_types(workers):
    check(searchsorted(np.arange(9), data("f8") / 4), np.searchsorted(np.arange(9), data("f8") / 4))
    with pytest.raises(ValueError, match="side"):
        searchsorted(np.arange(9), data("f8"), "middle")
    with pytest.raises(ValueError, match="deep|depth"):
        searchsorted(np.ones((2, 2)), data("f8"))


@pytest.mark.parametrize("dtype", ["?", "f8", "i4", "c16", "U3", "O"])
def test_nonzero(dtype, workers):
    x = (data("i4") % 3).astype(dtype) if dtype != "U3" else data(dtype)
    for view in (x, x.reshape(20, 100), x.reshape(100, 20).T, x.reshape(4, 5, 100)[:, ::-1], x[:0]):
        found, expected = nonzero(view), np.nonzero(view)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
        check(flatnonzero(view), np.flatnonzero(view))


@pytest.mark.parametrize("dtype", ["?", "f8", "i4", "U3", "O"])
def test_compress(dtype, workers):
    x, kept = data(dtype), data("i4", seed=1) > 5
    check(compress(kept, x), np.compress(kept, x))
    check(compress(kept[:500], x[::-1], axis=-1), np.compress(kept[:500], x[::-1], axis=-1))
    check(
        compress(kept[:20], x.reshape(20, 100), axis=0),
        np.compress(kept[:20], x.reshape(20, 100), axis=0),
    )
    check(compress(~kept & kept, x), np.compress(~kept & kept, x))
    with pytest.raises(IndexError):
        compress(np.ones(3000, bool), x)


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4", "u1", "?", "c16", "U3", "M8[s]"])
@pytest.mark.parametrize("returns", range(8))
def test_unique(dtype, returns, workers):
    flags = [bool(returns & bit) for bit in (1, 2, 4)]
    for x in (data(dtype), data(dtype).reshape(40, 50), data(dtype)[::-3]):
        found, expected = unique.unique(x, *flags), np.unique(x, *flags)
        assert type(found) is type(expected)
        pairs = zip(found, expected, strict=True) if any(flags) else [(found, expected)]
        for one, other in pairs:
            np.testing.assert_array_equal(one, other, strict=True)


def test_unique_of_nan_and_zeros_is_numpys():
    x = data("f8")
    for odd in ([np.nan], [0.0, -0.0], [np.nan, -0.0, 0.0, np.inf]):
        given = np.concatenate([x[x != 0], odd * 7])
        for equal_nan in (True, False):
            found = unique.unique(given, True, True, True, equal_nan=equal_nan)
            expected = np.unique(given, True, True, True, equal_nan=equal_nan)
            for one, other in zip(found, expected, strict=True):
                assert one.tobytes() == other.tobytes()


def test_along_an_axis_unique_is_numpys():
    x = data("i4").reshape(1000, 2)
    np.testing.assert_array_equal(unique.unique(x, axis=0), np.unique(x, axis=0))


def test_shared_arrays_and_lists_do_as_well():
    with sc.SharedArray(data("i4")) as arr:
        np.testing.assert_array_equal(unique.unique(arr), np.unique(arr.array))
        arr.array.sort()
        check(searchsorted(arr, arr), np.searchsorted(arr.array, arr.array))
        np.testing.assert_array_equal(nonzero(arr)[0], np.nonzero(arr.array)[0])
        check(compress(arr.array > 0, arr), np.compress(arr.array > 0, arr.array))
    assert unique.unique([2, 1, 2]).tolist() == [1, 2]
    assert searchsorted([1, 2], 2) == 1

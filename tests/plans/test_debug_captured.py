"""What a kernel brings along: watched under ``debug=True``, refused with ``retries``."""

from __future__ import annotations

import functools
import warnings
from types import SimpleNamespace

import numba as nb
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import shmcompute as sc
from shmcompute.errors import OutOfBoundsError


@pytest.fixture
def bins():
    """Of which the middle is a histogram."""
    with sc.SharedArray.zeros(12, "i8") as bins:
        yield bins


@pytest.fixture
def data():
    with sc.SharedArray(np.arange(800) % 4) as data:
        yield data


@nb.njit
def _count(histogram, x):
    for value in x:
        histogram[value] += 1


@nb.njit
def _count_atomically(histogram, x):
    for value in x:
        sc.atomic_add(histogram, value, 1)


def _count_in_python(histogram, x):
    histogram += np.bincount(x, minlength=4)


def _ways(histogram):
    """One update by every way that an array can come to a kernel."""
    by_default = (lambda x, h=histogram: _count_in_python(h, x), ())
    in_object = SimpleNamespace(deep=[{"h": histogram}])
    return {
        "partial": (functools.partial(_count, histogram), ()),
        "keyword": (functools.partial(lambda x, h: _count_in_python(h, x), h=histogram), ()),
        "closure": (lambda x: _count_in_python(histogram, x), ()),
        "default": by_default,
        "object": (lambda x: _count_in_python(in_object.deep[0]["h"], x), ()),
        "method": (_Counter(histogram).count, ()),
        "callable": (_Counter(histogram), ()),
        "container": (lambda x, pair: _count_in_python(pair[1], x), ((1, histogram),)),
        "jitted container": (_count_second, ((histogram, histogram),)),
    }


class _Counter:
    def __init__(self, histogram):
        self.histogram = histogram

    def count(self, x):
        _count_in_python(self.histogram, x)

    __call__ = count


@nb.njit
def _count_second(x, pair):
    for value in x:
        pair[1][value] += 1


WAYS = list(_ways(None))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", ["serial", "fork"])
def test_debug_tells_of_updates_that_would_be_lost(way, backend, pools, bins, data):
    histogram = bins.array[4:8]
    kernel, args = _ways(histogram)[way]
    with pytest.warns(RuntimeWarning, match="would lose each other's updates") as caught:
        sc.parallel_apply(kernel, data, *args, chunksize=80, pool=pools[backend], debug=True)
    np.testing.assert_array_equal(histogram, 200)  # one after another they lose none
    assert [(warning.filename, len(caught)) for warning in caught] == [(__file__, 1)]


def test_who_takes_care_is_not_told(any_pool, bins, data):
    histogram = bins.array[4:8]

    def under_lock(x):
        with whole.lock():
            _count_in_python(histogram, x)

    with sc.SharedArray.zeros(1) as whole:
        for kernel in (functools.partial(_count_atomically, histogram), under_lock):
            sc.parallel_apply(kernel, data, chunksize=80, pool=any_pool, debug=True)
    np.testing.assert_array_equal(histogram, 400)


def test_who_writes_elements_of_its_own_is_not_told(any_pool):
    def fill(out, x, start):
        out[start : start + x.size] = x

    with sc.SharedArray.zeros(100) as out, sc.SharedArray(np.arange(100.0)) as x:
        kernel = functools.partial(fill, out)
        sc.parallel_apply(kernel, x, sc.offset, chunksize=10, pool=any_pool, debug=True)
        np.testing.assert_array_equal(out.array, x.array)


@pytest.mark.parametrize("index", [-1, 4])
def test_what_is_written_beside_it_is_put_back(index, any_pool, bins, data):
    histogram = bins.array[4:8]

    def beyond(h, x):
        as_strided(h[:1], (1,))[0] += 1
        as_strided(h[:1], (9,), (h.itemsize * index,))[1] = 77

    with pytest.raises(OutOfBoundsError, match="argument 0 of its partial"):
        sc.parallel_apply(functools.partial(beyond, histogram), data, pool=any_pool, debug=True)
    np.testing.assert_array_equal(bins.array, 0)


@pytest.mark.parametrize("way", WAYS)
def test_retries_refuse_what_they_could_not_put_back(way, pools, bins, data):
    histogram = bins.array[4:8]
    kernel, args = _ways(histogram)[way]
    with pytest.raises(ValueError, match="brings a shared array along") as caught:
        sc.parallel_apply(kernel, data, *args, pool=pools["fork"], retries=1)
    assert "sc.whole" in str(caught.value)
    assert not histogram.any()


def test_retries_take_what_can_only_be_read(process_pool, data):
    with sc.SharedArray(np.array([3, 5, 7, 9])) as table:
        view = table.array.view()
        view.flags.writeable = False
        kernel = functools.partial(_look_up, view)
        sc.parallel_apply(kernel, data, pool=process_pool, retries=1)
        sc.parallel_apply(functools.partial(np.add, table[:1]), data, pool=process_pool, retries=1)
        np.testing.assert_array_equal(data.array, table.array[np.arange(800) % 4] + 3)


@nb.njit
def _look_up(table, x):
    for i in range(x.size):
        x[i] = table[x[i]]


def test_a_partial_whose_array_it_fills_has_changed_something(any_pool, bins, data):
    """It is no kernel that forgot to write in place."""
    histogram = bins.array[4:8]
    with warnings.catch_warnings(action="error"):
        kernel = functools.partial(_count_atomically, histogram)
        sc.parallel_apply(kernel, data, pool=any_pool, debug=True)

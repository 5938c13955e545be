"""Markers that split nothing: what kernels see of them, and what is refused."""

from __future__ import annotations

import copy
import pickle
import warnings

import numba as nb
import numpy as np
import pytest

import shmcompute as sc


@pytest.fixture
def arr():
    with sc.SharedArray(np.zeros(6)) as arr:
        yield arr


def nothing(*args):
    pass


@nb.njit
def add_everywhere(x, out):
    for i in range(out.size):
        out[i] += x.size


def test_there_is_one_chunk():
    for again in (copy.deepcopy(sc.chunk), pickle.loads(pickle.dumps(sc.chunk))):
        assert again is sc.chunk


@pytest.mark.parametrize("marker", [sc.scratch, sc.per_chunk])
def test_memory_that_cannot_be_is_refused(marker):
    with pytest.raises(ValueError, match=r"no size below 0.*-1"):
        marker((2, -1))
    with pytest.raises(TypeError, match="whole number"):
        marker(2.0)
    with pytest.raises(TypeError, match="Python objects"):
        marker(2, object)


def test_what_is_shared_must_be_writeable(arr):
    view = arr.array[:]
    view.flags.writeable = False
    with pytest.raises(ValueError, match=r"argument 1 .*read-only"):
        sc.parallel_apply(nothing, arr, sc.shared(view), backend="serial")


def test_what_is_shared_must_be_shared_memory(arr):
    with pytest.raises(TypeError, match="wrap it"):
        sc.parallel_apply(nothing, arr, sc.shared(np.zeros(3)))


@pytest.mark.parametrize("other", [sc.read, sc.split, sc.whole, sc.write])
def test_what_all_chunks_write_is_seen_in_no_other_argument(arr, other):
    with pytest.raises(ValueError, match="overlap"):
        sc.parallel_apply(
            nothing, np.zeros(4), sc.shared(arr), other(arr.array[2:]), backend="serial"
        )


def test_all_of_what_all_chunks_write_is_not_read_beside(arr):
    """Though it is the same view: others write there meanwhile. To be given it twice is allowed."""
    with pytest.raises(ValueError, match=r"argument 1 .*argument 2 .*overlap"):
        sc.parallel_apply(nothing, np.zeros(4), sc.shared(arr), sc.whole(arr), backend="serial")
    sc.parallel_apply(nothing, np.zeros(4), sc.shared(arr), sc.shared(arr), backend="serial")


def test_with_retries_what_all_chunks_write_is_refused(arr):
    with (
        sc.SharedArray(np.zeros(6)) as out,
        pytest.raises(ValueError, match=r"retries.*argument 1"),
    ):
        sc.parallel_apply(nothing, arr, sc.shared(out), retries=1)


def test_debug_tells_where_several_chunks_write(any_pool, arr):
    """And as long as none collide, it is silent, and all is as without."""
    with sc.SharedArray(np.zeros(4)) as out:
        with pytest.warns(RuntimeWarning, match=r"several chunks .*argument 1"):
            sc.parallel_apply(
                add_everywhere, sc.read(arr), sc.shared(out), chunksize=3, pool=any_pool, debug=True
            )
        np.testing.assert_array_equal(out.array, 6)
        with warnings.catch_warnings(action="error"):
            sc.parallel_apply(
                add_everywhere, sc.read(arr), sc.shared(out), chunksize=6, pool=any_pool, debug=True
            )
        np.testing.assert_array_equal(out.array, 12)


@pytest.mark.long
def test_several_outputs_come_as_a_tuple(any_pool, arr):
    def kernel(x, lows, highs):
        lows[()] = x.min()
        highs[:] = x.max()

    arr.array[:] = range(6)
    lows, highs = sc.parallel_apply(
        kernel, sc.read(arr), sc.per_chunk(()), sc.per_chunk(1, int), chunksize=2, pool=any_pool
    )
    with lows, highs:
        assert lows.array.tolist() == [0, 2, 4]
        assert highs.array.tolist() == [[1], [3], [5]]
        assert highs.dtype == int


def test_a_plan_makes_new_outputs_at_each_run(any_pool, arr):
    step = sc.plan(_count, arr, sc.per_chunk((), int), chunksize=2, pool=any_pool)
    with step() as first, step() as second:
        assert first.array.tolist() == second.array.tolist() == [2, 2, 2]
        assert first.name != second.name


@nb.njit
def _count(x, out):
    out[()] += x.size


def test_of_a_call_that_fails_no_output_is_left(any_pool, arr):
    def kernel(x, out):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sc.parallel_apply(kernel, arr, sc.per_chunk(3), pool=any_pool)


def test_no_chunk_is_no_row(any_pool):
    with (
        sc.SharedArray(np.zeros(0)) as empty,
        sc.parallel_apply(_count, empty, sc.per_chunk(2), pool=any_pool) as out,
    ):
        assert out.shape == (0, 2)


@pytest.mark.parametrize(
    "number", [np.float64(0.5), np.float32(0.5), np.int8(-3), np.uint64(2**64 - 1), np.bool_(1)]
)
def test_numpys_numbers_keep_their_type_and_need_no_new_plan(any_pool, arr, number):
    def look(x, value):
        if type(value) is not type(number):
            raise TypeError(type(value))
        x[:] = value

    for kernel in (look, _set):
        sc.parallel_apply(kernel, arr, number, pool=any_pool)
        np.testing.assert_array_equal(arr.array, float(number))


@nb.njit
def _set(x, value):
    for i in range(x.size):
        x[i] = value

"""`parallel_for`: each number of the range once, nothing split."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest

import shmcompute as sc


@nb.njit
def count(first, last, out):
    for i in range(first, last):
        out[i] += 1


@pytest.mark.parametrize("schedule", ["static", "dynamic", "guided"])
@pytest.mark.parametrize("chunksize", [None, 3])
def test_each_number_comes_once(any_pool, schedule, chunksize):
    with sc.SharedArray(np.zeros(50, int)) as out:
        sc.parallel_for(
            count, 5, 40, sc.shared(out), schedule=schedule, chunksize=chunksize, pool=any_pool
        )
        np.testing.assert_array_equal(out.array, [0] * 5 + [1] * 35 + [0] * 10)


@pytest.mark.parametrize("stop", [3, 2, -100])
def test_an_empty_range_is_no_work(any_pool, stop):
    def fails(first, last):
        raise AssertionError

    sc.parallel_for(fails, 3, stop, pool=any_pool)


def test_a_range_is_of_whole_numbers():
    for start, stop in ((0.0, 3), (0, "3"), (None, 3)):
        with pytest.raises(TypeError, match="whole number"):
            sc.parallel_for(count, start, stop)


def test_numpys_whole_numbers_will_do(any_pool):
    with sc.SharedArray(np.zeros(5, int)) as out:
        sc.parallel_for(count, np.int32(1), np.uint8(4), sc.shared(out), pool=any_pool)
        assert out.array.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("marker", [sc.split, sc.read, sc.write, lambda x: x])
def test_an_array_that_would_be_split_is_refused(marker):
    with (
        sc.SharedArray(np.zeros(5, int)) as arr,
        pytest.raises(TypeError, match=r"argument 0 .*sc\.whole.*sc\.shared"),
    ):
        sc.parallel_for(count, 0, 5, marker(arr))


def test_errors_name_the_part_of_the_range(any_pool):
    def fails(first, last):
        if first <= 7 < last:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        sc.parallel_for(fails, 5, 15, chunksize=2, pool=any_pool)
    assert any("in chunk [7, 9)" in note for note in caught.value.__notes__)


def test_offset_is_where_the_part_starts(any_pool):
    def kernel(first, last, offset, number, out):
        out[number] = first, last, offset

    with sc.SharedArray(np.zeros((3, 3), int)) as out:
        sc.parallel_for(
            kernel, 10, 16, sc.offset, sc.chunk, sc.shared(out), chunksize=2, pool=any_pool
        )
        assert out.array.tolist() == [[10, 12, 10], [12, 14, 12], [14, 16, 14]]


def test_with_retries_the_part_of_a_dead_worker_is_run_again(tmp_path):
    import os

    flag = tmp_path / "died"

    def kernel(first, last, number, out):
        out[()] += 10 * number
        if number == 1 and not flag.exists():
            flag.touch()
            os._exit(1)

    with (
        sc.Pool(2) as pool,
        sc.parallel_for(
            kernel, 0, 4, sc.chunk, sc.per_chunk(()), chunksize=1, retries=2, pool=pool
        ) as out,
    ):
        assert out.array.tolist() == [0, 10, 20, 30]

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


@nb.njit
def _note(first, last, seen, factor, power):
    for i in range(first, last):
        seen[i] += factor * i**power


@pytest.mark.parametrize("kernel", [_note, _note.py_func], ids=["jitted", "python"])
@pytest.mark.parametrize("keywords", [{}, {"debug": True}, {"chunksize": 2}])
def test_a_plan_of_a_range_runs_over_others_with_other_numbers(any_pool, kernel, keywords):
    with sc.SharedArray.zeros(12, int) as seen:
        args = range(3), sc.shared(seen), 1, 1
        step = sc.plan(kernel, *args, pool=any_pool, schedule="dynamic", **keywords)
        want = np.zeros(12, int)
        for first, last, factor, power in [(0, 3, 1, 1), (2, 12, 3, 2), (5, 5, 1, 1), (7, 8, 2, 0)]:
            step(range(first, last), factor, power)
            want[first:last] += factor * np.arange(first, last) ** power
        step(range(4))  # with the numbers that it was made with
        want[:4] += np.arange(4)
        step(5, 1)  # over the range that it was made with
        want[:3] += 5 * np.arange(3)
        np.testing.assert_array_equal(seen.array, want)
        assert step.chunks[-1][1] == 3


def test_a_plan_refuses_numbers_that_it_was_not_made_with(any_pool):
    with sc.SharedArray.zeros(3) as arr:
        step = sc.plan(np.multiply, arr, 2.0, pool=any_pool)
        for wrong in [(3,), (3.0, 4.0), ("x",), (range(2), 3.0), (None,)]:
            with pytest.raises(TypeError, match=r"expected these numbers.*\(float\)"):
                step(*wrong)
        over = sc.plan(_note, range(3), sc.shared(arr), 1, 1, pool=any_pool)
        with pytest.raises(TypeError, match=r"a range and these numbers"):
            over(range(2), 1)
        with pytest.raises(TypeError, match=r"\(int, int\)"):
            over(range(2), 1, 2**70)
        with pytest.raises(ValueError, match="a step of 1"):
            over(range(0, 4, 2))
        with pytest.raises(ValueError, match="a step of 1"):
            sc.plan(_note, range(0, 4, 2), sc.shared(arr), 1, 1, pool=any_pool)
        assert not arr.array.any()


@pytest.mark.parametrize("keywords", [{"retries": 1}, {"schedule": "guided"}])
def test_where_the_plan_has_the_edges_its_range_is_the_only_one(keywords):
    step = sc.plan(_nothing, range(4), sc.per_chunk((), int), backend="serial", **keywords)
    with pytest.raises(ValueError, match="has one range"):
        step(range(5))


def _nothing(first, last, out):
    """Do nothing."""


def test_a_range_beside_an_array_is_an_argument(any_pool):
    """As ever: only where nothing is split does it tell what is run over."""
    with sc.SharedArray.zeros(4) as arr:
        sc.plan(_add_length, range(7), arr, pool=any_pool)()
        assert (arr.array == 7).all()


def _add_length(numbers, x):
    x += len(numbers)


@nb.njit
def mark(first, last, x):
    for i in range(first, last):
        x[i] += 1


def test_the_latest_ranges_of_a_plan_are_kept_and_no_more(monkeypatch, pools):
    """Each does its own range, whether it was run before, is run first, or was forgotten."""
    monkeypatch.setattr("shmcompute.plans.plan.KEPT", 5)
    starts = [*range(12), *range(12), 3, 3, 11]
    expected = sum((np.arange(20) >= start).astype(int) for start in starts)
    with sc.SharedArray.zeros(20, int) as one, sc.SharedArray.zeros(20, int) as other:
        step = sc.plan(mark, range(20), sc.shared(one), pool=pools["threads"])
        for start in starts:
            step(range(start, 20))
            sc.parallel_for(mark, start, 20, sc.shared(other), pool=pools["threads"])
            assert len(step._plan.ranges) <= 5
        np.testing.assert_array_equal(one, expected)
        np.testing.assert_array_equal(other, expected)

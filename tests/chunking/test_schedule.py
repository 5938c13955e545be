"""Chunks cover the axis once, in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shmcompute.chunking.schedule import chunks

LENGTHS = st.integers(0, 3000)
WORKERS = st.integers(1, 17)
SIZES = st.none() | st.integers(1, 4000)


@given(LENGTHS, WORKERS, st.sampled_from(["static", "dynamic", "guided"]), SIZES)
def test_chunks_cover_the_axis_once(length, workers, schedule, chunksize):
    made = chunks(length, workers, schedule, chunksize)
    assert [i for start, stop in made for i in range(start, stop)] == list(range(length))
    assert all(start < stop for start, stop in made)


@given(LENGTHS, WORKERS)
def test_static_is_one_even_block_a_worker(length, workers):
    sizes = [stop - start for start, stop in chunks(length, workers, "static", None)]
    assert len(sizes) == min(length, workers)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@given(LENGTHS, WORKERS, st.integers(1, 100))
def test_chunksize_is_kept(length, workers, chunksize):
    for schedule in ("static", "dynamic"):
        sizes = [stop - start for start, stop in chunks(length, workers, schedule, chunksize)]
        assert all(size == chunksize for size in sizes[:-1])


@given(LENGTHS, WORKERS, st.integers(1, 100))
def test_guided_chunks_shrink_to_the_chunksize(length, workers, chunksize):
    sizes = [stop - start for start, stop in chunks(length, workers, "guided", chunksize)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(size >= chunksize for size in sizes[:-1])


@pytest.mark.parametrize("chunksize", [0, -1])
def test_a_chunksize_below_1_is_a_value_error(chunksize):
    with pytest.raises(ValueError, match="chunksize"):
        chunks(10, 2, "static", chunksize)


@pytest.mark.parametrize("chunksize", [1.5, "3", True])
def test_a_chunksize_that_is_no_number_is_a_type_error(chunksize):
    with pytest.raises(TypeError, match="chunksize"):
        chunks(10, 2, "static", chunksize)


def test_an_unknown_schedule_lists_the_known_ones():
    with pytest.raises(ValueError, match="'static', 'dynamic', 'guided'"):
        chunks(10, 2, "auto", None)

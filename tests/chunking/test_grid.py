"""Blocks cover the plane once, are numbered row by row and dealt in bands."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shmcompute.backends.doorbell import control_block as control
from shmcompute.chunking import Grid, pack_head, unpack_head
from shmcompute.chunking.grid_schedule import Cutting
from shmcompute.chunking.schedule import Chunks

SIDES = st.integers(0, 300)
CUTTINGS = st.builds(Cutting, st.integers(1, 9), st.integers(1, 5000), st.booleans())
SCHEDULES = st.sampled_from(["static", "dynamic", "guided"])
SIZES = st.none() | st.integers(1, 99) | st.tuples(st.integers(1, 99), st.integers(1, 99))


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(CUTTINGS, st.tuples(SIDES, SIDES), SCHEDULES, SIZES)
def test_blocks_cover_the_plane_once(cutting, shape, schedule, chunksize):
    seen = np.zeros(shape, int)
    for (row, column), (row_stop, column_stop) in cutting.cut(shape, schedule, chunksize):
        assert row < row_stop
        assert column < column_stop
        seen[row:row_stop, column:column_stop] += 1
    assert (seen == 1).all()


@settings(max_examples=100, deadline=None)
@given(CUTTINGS, st.tuples(SIDES, SIDES), SCHEDULES, SIZES)
def test_numbers_are_those_of_a_matrix_that_is_read(cutting, shape, schedule, chunksize):
    grid = cutting.cut(shape, schedule, chunksize)
    blocks = grid.by_number()
    assert [blocks[grid.number(i)] for i in range(len(grid))] == list(grid)
    assert [start for start, _ in blocks] == sorted(start for start, _ in blocks)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(-9, 9).filter(bool))
def test_machine_code_deals_as_python_does(rows, columns, band):
    grid = Grid(Chunks(0, rows, rows, 0), Chunks(0, columns, columns, 1), band)
    control.prepare()
    dealt = [control.place_in_grid(i, rows, columns, band) for i in range(len(grid))]
    assert dealt == [grid.place(i) for i in range(len(grid))]
    assert sorted(dealt) == [(i, j) for i in range(rows) for j in range(columns)]


@pytest.mark.parametrize("by_columns", [False, True])
def test_workers_in_turn_go_along_rows_of_their_own_side_by_side(by_columns):
    """Where columns lie together in memory, along columns."""
    grid = Cutting(3, 10**9, by_columns).cut((60, 60), "static", 10)
    for worker in range(3):
        places = [grid.place(i)[:: -1 if by_columns else 1] for i in range(worker, len(grid), 3)]
        assert places == [(row, column) for row in (worker, worker + 3) for column in range(6)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 64), st.integers(100, 3000), st.integers(100, 3000), st.booleans())
def test_by_default_workers_get_equally_much(workers, rows, columns, by_columns):
    """But for what the last blocks of rows and columns are shorter."""
    grid = Cutting(workers, 128 * 128, by_columns).cut((rows, columns), "static", None)
    areas = [(r1 - r0) * (c1 - c0) for (r0, c0), (r1, c1) in grid]
    each = [sum(areas[worker::workers]) for worker in range(workers)]
    assert max(each) <= 1.5 * rows * columns / workers
    assert len(grid) >= workers


def test_by_default_blocks_are_nearly_square_and_begin_at_cache_lines():
    grid = Cutting(2, 128 * 128).cut((4096, 4096), "static", None)
    (row, column), (row_stop, column_stop) = grid[0]
    assert 0.8 <= (row_stop - row) / (column_stop - column) <= 1.25
    assert all(start[1] % 16 == 0 for start, _ in grid)
    assert {stop[0] - start[0] for start, stop in grid} <= {128, 129}


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(2, 999), st.integers(2, 999), SIZES)
def test_guided_sizes_fall(workers, rows, columns, chunksize):
    grid = Cutting(workers, 10**6).cut((rows, columns), "guided", chunksize)
    heights = [stop - start for start, stop in grid.rows]
    assert all(one >= other - 1 for one, other in zip(heights, heights[1:], strict=False))
    if chunksize is None:
        assert min(heights) > 1


@settings(max_examples=60, deadline=None)
@given(CUTTINGS, st.tuples(st.integers(1, 300), st.integers(1, 300)), SCHEDULES, SIZES)
def test_a_frame_tells_blocks_that_a_rule_tells(cutting, shape, schedule, chunksize):
    grid = cutting.cut(shape, schedule, chunksize)
    words = memoryview(pack_head(grid)).cast("q")
    assert words[0] == len(grid)
    assert unpack_head(words) == (None if schedule == "guided" else grid)


def test_a_frame_tells_chunks_as_ever():
    chunks = Chunks(3, 100, 5, 0)
    assert unpack_head(memoryview(pack_head(chunks)).cast("q")) == chunks
    assert unpack_head(memoryview(pack_head(((0, 2), (2, 9)))).cast("q")) is None


@pytest.mark.parametrize("bad", [0, -1, (4, 0), (0, 4)])
def test_sizes_below_one_are_refused(bad):
    with pytest.raises(ValueError, match="chunksize: expected at least 1"):
        Cutting(2, 100).cut((9, 9), "static", bad)


@pytest.mark.parametrize("bad", [1.5, "4", (2.0, 4), (4, None), [4, 4], True])
def test_sizes_that_are_no_numbers_are_refused(bad):
    with pytest.raises(TypeError, match="chunksize: expected a whole number"):
        Cutting(2, 100).cut((9, 9), "static", bad)


@pytest.mark.parametrize("bad", [(), (4,), (4, 4, 4)])
def test_sizes_for_another_number_of_axes_are_refused(bad):
    with pytest.raises(ValueError, match=r"chunksize: .*\(rows, columns\)"):
        Cutting(2, 100).cut((9, 9), "static", bad)


def test_it_is_a_sequence():
    grid = Cutting(1, 100).cut((4, 4), "static", 2)
    assert grid[-1] == grid[3] == ((2, 2), (4, 4))
    assert grid[1:3] == (grid[1], grid[2])
    with pytest.raises(IndexError):
        grid[4]

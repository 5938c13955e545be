"""Calls along two axes: equal to NumPy on whole arrays, however they are cut, whoever runs them."""

from __future__ import annotations

import os

import numba as nb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shmcompute as sc
from shmcompute.errors import KernelTypeError, OutOfBoundsError, ReadOnlyError, WorkerLostError

MODES = ["edge", "reflect", "symmetric", "wrap", 2.5]
KINDS = ["serial", "threads", "fork"]


@nb.njit
def multiply(c, a, b):
    for i in range(c.shape[0]):
        for j in range(c.shape[1]):
            total = 0.0
            for k in range(a.shape[1]):
                total += a[i, k] * b[k, j]
            c[i, j] = total


def multiply_in_python(c, a, b):
    multiply.py_func(c, a, b)


@nb.njit
def weighted(out, x, tall, wide):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = 0.0
            for p in range(tall):
                for q in range(wide):
                    total += x[i + p, j + q] * (1 + 7 * p + q)
            out[i, j] = total


@nb.njit
def tell(part, out, where, number):
    out[0], out[1], out[2] = where[0], where[1], number


def tell_in_python(*args):
    tell.py_func(*args)


def laid_out(x, layout):
    """A SharedArray, and a view of it that is `x`, in this memory layout."""
    order, step, transposed = layout
    source = x.T if transposed else x
    arr = sc.SharedArray.zeros([step * size for size in source.shape], x.dtype, order=order)
    view = arr.array[::step, ::step]
    view[...] = source
    return arr, view.T if transposed else view


LAYOUTS = st.tuples(st.sampled_from("CF"), st.sampled_from([1, 2]), st.booleans())
SHAPES = st.tuples(st.integers(1, 24), st.integers(1, 24))
SIZES = st.none() | st.integers(1, 20) | st.tuples(st.integers(1, 20), st.integers(1, 20))
SCHEDULES = st.sampled_from(["static", "dynamic", "guided"])


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(st.data(), SHAPES, st.integers(1, 5), SIZES, SCHEDULES, st.sampled_from(KINDS))
def test_a_matrix_product_is_that_of_the_whole(pools, data, shape, inner, size, schedule, kind):
    """Of arrays in any memory layout, along axes that any of their own may be."""
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    a, b = rng.random((shape[0], inner)), rng.random((inner, shape[1]))
    expected = np.zeros(shape)
    multiply(expected, a, b)
    kernel = data.draw(st.sampled_from([multiply, multiply_in_python]))
    made = [laid_out(x, data.draw(LAYOUTS)) for x in (np.zeros(shape), a, b)]
    c, a, b = (view for _, view in made)
    sc.parallel_apply(
        kernel, c, sc.read(a, axis=(0, None)), sc.read(b, axis=(None, -1)),
        axis=(0, 1), chunksize=size, schedule=schedule, pool=pools[kind],
    )  # fmt: skip
    np.testing.assert_array_equal(c, expected)
    turned = np.zeros(shape[::-1])
    if kind != "fork":
        columns, rows = sc.read(b, axis=(None, 1)), sc.read(a, axis=(0, None))
        sc.parallel_apply(kernel, sc.write(turned.T), rows, columns, axis=(0, 1), pool=pools[kind])
        np.testing.assert_array_equal(turned.T, expected)
    for arr, _ in made:
        arr.close()


DEPTH = st.integers(0, 4)
DEPTHS = DEPTH | st.tuples(DEPTH | st.tuples(DEPTH, DEPTH), DEPTH | st.tuples(DEPTH, DEPTH))


@pytest.mark.long
@settings(max_examples=50, deadline=None)
@given(st.data(), SHAPES, DEPTHS, SIZES, SCHEDULES, st.sampled_from(KINDS))
def test_a_halo_is_what_numpy_pads(pools, data, shape, depth, size, schedule, kind):
    boundary = data.draw(st.sampled_from(MODES))
    each = depth if isinstance(depth, tuple) else (depth, depth)
    widths = [one if isinstance(one, tuple) else (one, one) for one in each]
    x = np.random.default_rng(data.draw(st.integers(0, 9))).random(shape)
    if isinstance(boundary, str):
        padded = np.pad(x, widths, boundary)
    else:
        padded = np.pad(x, widths, constant_values=boundary)
    tall, wide = 1 + sum(widths[0]), 1 + sum(widths[1])
    expected = np.zeros(shape)
    weighted(expected, padded, tall, wide)
    (one, out), (other, seen) = (laid_out(y, data.draw(LAYOUTS)) for y in (np.zeros(shape), x))
    given_array = data.draw(st.booleans())
    halo = sc.halo(seen, depth, boundary=boundary)
    if not given_array:
        other.close()
        other, seen = laid_out(padded, data.draw(LAYOUTS))
        halo = sc.halo(seen, depth)
    sc.parallel_apply(
        weighted, out, halo, tall, wide,
        axis=(0, 1), chunksize=size, schedule=schedule, pool=pools[kind],
    )  # fmt: skip
    np.testing.assert_array_equal(out, expected)
    one.close()
    other.close()


@pytest.mark.parametrize("kernel", [tell, tell_in_python])
@pytest.mark.parametrize("schedule", ["static", "dynamic", "guided"])
def test_each_block_knows_where_it_is(any_pool, kernel, schedule):
    """Its offset is a pair, and its number that of a matrix that is read, as in the plan's list."""
    with sc.SharedArray.zeros((40, 30)) as arr:
        for more in ({}, {"retries": 1}, {"debug": True}):
            step = sc.plan(
                kernel, sc.read(arr), sc.per_chunk(3, int), sc.offset, sc.chunk,
                axis=(0, 1), chunksize=(7, 11), schedule=schedule, pool=any_pool, **more,
            )  # fmt: skip
            with step() as told:
                expected = [[*start, i] for i, (start, _) in enumerate(step.chunks)]
                assert told.array.tolist() == expected
            assert step.chunks == tuple(sorted(step.chunks))
            assert len(step.chunks) > 6


@nb.njit
def mixed(out, table, columns, counts, room, factor):
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            room[j] = columns[j] * factor
        for j in range(out.shape[1]):
            out[i, j] += room[j] + table.sum()
    sc.atomic_add(counts, 0, out.size)


def mixed_in_python(out, table, columns, counts, room, factor):
    room[: out.shape[1]] = columns * factor
    out += room[: out.shape[1]] + table.sum()
    sc.atomic_add(counts, 0, out.size)


@pytest.mark.parametrize("kernel", [mixed, mixed_in_python])
def test_all_markers_do(any_pool, kernel):
    """What is whole, shared, along one axis, scratch and a number, as along one."""
    with (
        sc.SharedArray(np.arange(600.0).reshape(30, 20)) as out,
        sc.SharedArray(np.arange(5.0)) as table,
        sc.SharedArray(np.arange(20.0)) as columns,
        sc.SharedArray.zeros(1, int) as counts,
    ):
        expected = out.array + columns.array * 3.0 + 10.0
        along = sc.read(columns, axis=(None, 0))
        args = sc.whole(table), along, sc.shared(counts), sc.scratch(20), 3.0
        sc.parallel_apply(kernel, out, *args, axis=(0, 1), chunksize=(7, 6), pool=any_pool)
        np.testing.assert_array_equal(out.array, expected)
        assert counts[0] == 600


@pytest.mark.long
def test_the_same_call_again_with_other_shapes_and_numbers(any_pool):
    """One form serves arrays of other shapes, and each is cut anew."""
    for rows, columns in ((9, 40), (80, 3), (1, 1), (64, 64), (0, 5), (5, 0)):
        rng = np.random.default_rng(rows)
        a, b = rng.random((rows, 4)), rng.random((4, columns))
        expected = np.zeros((rows, columns))
        multiply(expected, a, b)
        with sc.SharedArray(a) as x, sc.SharedArray(b) as y, sc.SharedArray(expected * 0) as c:
            parts = sc.read(x, axis=(0, None)), sc.read(y, axis=(None, 1))
            for _ in range(2):
                c[...] = 0
                sc.parallel_apply(multiply, c, *parts, axis=(0, 1), pool=any_pool)
                np.testing.assert_array_equal(c.array, expected)


def test_ufuncs_match_blocks(any_pool):
    """Elementwise, with what goes along one axis alone, and NumPy's matrix product."""
    rng = np.random.default_rng(1)
    a, b, row = rng.random((40, 6)), rng.random((6, 30)), rng.random(30)
    with (
        sc.SharedArray(a) as x, sc.SharedArray(b) as y, sc.SharedArray(row) as r,
        sc.SharedArray.zeros((40, 30)) as c, sc.SharedArray.zeros((40, 30)) as other,
    ):  # fmt: skip
        parts = sc.read(x, axis=(0, None)), sc.read(y, axis=(None, 1))
        options = {"axis": (0, 1), "chunksize": (9, 8), "pool": any_pool}
        sc.parallel_apply(np.matmul, c, *parts, **options)
        np.testing.assert_allclose(c.array, a @ b)
        before = c.array.copy()
        sc.parallel_apply(np.add, c, sc.read(r, axis=(None, 0)), **options)
        np.testing.assert_array_equal(c.array, before + row)
        with pytest.raises(KernelTypeError, match="not matched"):
            sc.parallel_apply(np.add, c, sc.read(x[:, 0], axis=(0, None)), **options)
        with pytest.raises(KernelTypeError, match=r"not split along the call's second axis"):
            sc.parallel_apply(np.add, c, sc.read(other, axis=(0, None)), **options)
        with pytest.raises(KernelTypeError, match="is whole"):
            sc.parallel_apply(np.matmul, c, sc.whole(x), parts[1], **options)


def draw(x, rng):
    x[...] = rng.standard_normal(x.shape)


def test_random_numbers_depend_on_the_seed_alone(pools):
    """Not on workers, backend, schedule or memory layout."""
    drawn = []
    for name in ("serial", "threads", "fork"):
        for order in "CF":
            with sc.SharedArray.zeros((70, 50), order=order) as arr:
                for schedule in ("static", "dynamic"):
                    options = {"axis": (0, 1), "schedule": schedule, "pool": pools[name]}
                    sc.parallel_apply(draw, arr, sc.rng(7), **options)
                    drawn.append(arr.array.copy())
    assert all(np.array_equal(drawn[0], other) for other in drawn)
    assert len(np.unique(drawn[0])) == 3500


@nb.njit
def double(x):
    x *= 2


@nb.njit
def raise_at(x, where):
    if where[0] == 7 and where[1] == 6:
        raise ValueError("here")


def test_chains_go_through_blocks(any_pool):
    with sc.SharedArray(np.ones((20, 30))) as a, sc.SharedArray.zeros((20, 30)) as b:
        chain = [(double, a), (np.add, b, sc.read(a)), (np.multiply, b, 3.0)]
        sc.parallel_apply(chain, axis=(0, 1), chunksize=(6, 7), pool=any_pool)
        assert (a.array == 2).all()
        assert (b.array == 6).all()
        unlike = [(double, a), (double, sc.split(b, axis=(1, 0)))]
        with pytest.raises(ValueError, match=r"one length, got \(20, 30\), \(30, 20\)"):
            sc.parallel_apply(unlike, axis=(0, 1), pool=any_pool)
        seen = [(double, a), (np.add, b, sc.read(a[::-1]))]
        with pytest.raises(ValueError, match=r"link 0 of the chain writes .* sees in other parts"):
            sc.parallel_apply(seen, axis=(0, 1), pool=any_pool)


def test_an_error_names_the_block(any_pool):
    with sc.SharedArray.zeros((20, 30)) as arr:
        with pytest.raises(ValueError, match="here") as raised:
            sc.parallel_apply(
                raise_at, arr, sc.offset, axis=(0, 1), chunksize=(7, 6), pool=any_pool
            )
        assert any("in chunk [(7, 6), (14, 12))" in note for note in raised.value.__notes__)


def overstep(x, y):
    y.flags.writeable = True
    y[...] = 1


@nb.njit
def run_over(x):
    x[0, x.shape[1]] = 1


def test_debug_finds_what_is_written_beside_a_block(pools):
    for name in ("serial", "fork"):
        with sc.SharedArray.zeros((12, 12)) as a, sc.SharedArray.zeros((12, 12)) as b:
            options = {"axis": (0, 1), "chunksize": 4, "pool": pools[name], "debug": True}
            with pytest.raises(IndexError, match="index 4 is out of bounds for axis 1 with size 4"):
                sc.parallel_apply(run_over, a, **options)
            with pytest.raises(ReadOnlyError, match=r"in chunk \[\(\d, \d\), \(\d+, \d+\)\)"):
                sc.parallel_apply(overstep, a, sc.read(b), **options)
            with pytest.raises(OutOfBoundsError):
                sc.parallel_apply(_beside, a, **options)
            assert not a.array.any()
            assert not b.array.any()


def _beside(x):
    wider = np.lib.stride_tricks.as_strided(x, (4, 5), x.strides)
    wider[:, 4] = 1


def die_once(x, where, marker):
    x += 1
    if where == (4, 4) and not os.path.exists(marker):
        open(marker, "w").close()
        os._exit(3)


def test_with_retries_each_block_is_done_once(tmp_path):
    with sc.SharedArray.zeros((12, 12)) as arr, sc.Pool(2) as pool:
        options = {"axis": (0, 1), "chunksize": 4, "pool": pool}
        with pytest.raises(WorkerLostError) as raised:
            sc.parallel_apply(die_once, arr, sc.offset, str(tmp_path / "1"), **options)
        assert ((4, 4), (8, 8)) in raised.value.chunks
        arr[...] = 0
        sc.parallel_apply(die_once, arr, sc.offset, str(tmp_path / "2"), retries=1, **options)
        assert (arr.array == 1).all()


@nb.njit
def relax(new, old):
    for i in range(new.shape[0]):
        for j in range(new.shape[1]):
            around = old[i, j + 1] + old[i + 2, j + 1] + old[i + 1, j] + old[i + 1, j + 2]
            new[i, j] = 0.25 * around


@nb.njit
def relax_and_tell(new, old):
    relax(new, old)
    return np.abs(new - old[1:-1, 1:-1]).max()


@pytest.mark.long
def test_sweeps_go_along_two_axes(pools):
    start = np.random.default_rng(3).random((30, 40))
    expected, last = start.copy(), start.copy()
    for _ in range(6):
        relax(expected, np.pad(last, 1, "wrap"))
        expected, last = last, expected
    for name in ("serial", "threads", "fork"):
        for more in ({}, {"until": lambda change: change < 0, "every": 2}):
            with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
                kernel = relax_and_tell if more else relax
                found = sc.parallel_iterate(
                    kernel, new, sc.halo(old, 1, boundary="wrap"), times=6, swap=(old, new),
                    axis=(0, 1), pool=pools[name], **more,
                )  # fmt: skip
                np.testing.assert_array_equal(found.array, last)


def test_reductions_go_along_one_axis(pools):
    with sc.SharedArray.zeros((4, 4)) as arr, pytest.raises(TypeError, match="along one axis"):
        sc.parallel_reduce(np.sum, arr, combine=np.add, axis=(0, 1), pool=pools["serial"])

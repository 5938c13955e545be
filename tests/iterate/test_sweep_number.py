"""Sweeps over a range of numbers, whose kernels are told which sweep it is."""

from __future__ import annotations

import functools

import numba as nb
import numpy as np
import pytest

import shmcompute as sc


@nb.njit
def paths(first, last, table, diagonal):
    """Of each cell of a diagonal, the sum of two of the one before it."""
    size = table.shape[0]
    for i in range(max(first, diagonal - size + 1, 1), min(last, diagonal)):
        table[i, diagonal - i] = (table[i - 1, diagonal - i] + table[i, diagonal - i - 1]) % 10007


@functools.cache
def pascal(size):
    table = np.ones((size, size), np.int64)
    for i in range(1, size):
        for j in range(1, size):
            table[i, j] = (table[i - 1, j] + table[i, j - 1]) % 10007
    return table


@pytest.mark.parametrize("kernel", [paths, paths.py_func], ids=["jitted", "python"])
@pytest.mark.parametrize("keywords", [{}, {"schedule": "dynamic", "chunksize": 5}, {"debug": True}])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # chunks change cells that others read
def test_a_wavefront_is_a_sweep_for_each_diagonal(any_pool, kernel, keywords):
    size = 24
    with sc.SharedArray.full((size, size), 1, dtype=np.int64) as table:
        args = range(1, size), sc.shared(table), sc.sweep
        last = sc.parallel_iterate(kernel, *args, times=2 * size - 1, pool=any_pool, **keywords)
        assert last is table
        np.testing.assert_array_equal(table.array, pascal(size))


@pytest.mark.parametrize("workers", range(1, 8))
def test_workers_make_no_difference(workers):
    with (
        sc.Pool(workers, backend="threads") as pool,
        sc.SharedArray.full((60, 60), 1, dtype=np.int64) as table,
    ):
        args = range(1, 60), sc.shared(table), sc.sweep
        sc.parallel_iterate(paths, *args, times=119, pool=pool)
        np.testing.assert_array_equal(table.array, pascal(60))


@nb.njit
def note(first, last, seen, sweep, factor):
    for i in range(first, last):
        seen[sweep, i] += factor * (i + 1)


@nb.njit
def double(first, last, seen, sweep, factor):
    for i in range(first, last):
        seen[sweep, i] *= 2


@pytest.mark.parametrize("kernel", [note, note.py_func], ids=["jitted", "python"])
def test_links_of_a_chain_and_other_numbers(any_pool, kernel):
    """All links of a sweep have its number; other numbers keep their places."""
    chain = [kernel, (double if kernel is note else double.py_func, range(2, 9))]
    with sc.SharedArray.zeros((5, 9), np.int64) as seen:
        chain[1] += (sc.shared(seen), sc.sweep, 1)
        args = range(2, 9), sc.shared(seen), sc.sweep, 7
        sc.parallel_iterate(chain, *args, times=5, pool=any_pool)
        sc.parallel_iterate(chain, *args, times=3, pool=any_pool)  # by the program that is kept
        want = np.zeros((5, 9), np.int64)
        want[:, 2:] = 14 * np.arange(3, 10)
        want[:3] *= 3
        np.testing.assert_array_equal(seen.array, want)


@nb.njit
def grow(x, sweep):
    for i in range(x.size):
        x[i] = 10 * x[i] + sweep
    return x[0]


@pytest.mark.parametrize("kernel", [grow, grow.py_func], ids=["jitted", "python"])
@pytest.mark.parametrize("every", [1, 3])
def test_it_is_told_with_arrays_that_are_split_and_until(any_pool, kernel, every):
    with sc.SharedArray.zeros(40) as x:
        sc.parallel_iterate(
            kernel, x, sc.sweep, times=9, until=lambda top: top >= 12, every=every, pool=any_pool
        )

        assert (x.array == 12).all()  # after the sweeps 0, 1 and 2


@nb.njit
def one_each(first, last, seen, sweep):
    for i in range(first, last):
        seen[i] = seen[i] * 2 + sweep


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_ranges_shorter_than_the_workers(any_pool, length):
    with sc.SharedArray.zeros(8, np.int64) as seen:
        args = range(4, 4 + length), sc.shared(seen), sc.sweep
        sc.parallel_iterate(one_each, *args, times=4, pool=any_pool)
        want = np.zeros(8, np.int64)
        want[4 : 4 + length] = 11
        np.testing.assert_array_equal(seen.array, want)


def test_bad_input_is_refused(any_pool):
    with sc.SharedArray.zeros((4, 4), np.int64) as table:
        with pytest.raises(ValueError, match=r"sc\.sweep: there are sweeps in"):
            sc.parallel_apply(grow, table[0], sc.sweep, pool=any_pool)
        with pytest.raises(ValueError, match="go over one range"):
            chain = [note, (note, range(3), sc.shared(table), sc.sweep, 1)]
            args = range(4), sc.shared(table), sc.sweep, 1
            sc.parallel_iterate(chain, *args, times=2, pool=any_pool)
        with pytest.raises(ValueError, match="a step of 1"):
            args = range(0, 4, 2), sc.shared(table), sc.sweep
            sc.parallel_iterate(paths, *args, times=2, pool=any_pool)
        assert not table.array.any()


def draw(out, rng, sweep):
    out[sweep] = rng.integers(0, 1 << 60, out.shape[1])


def drawn(link, sweep, size):
    """What a chunk of one link draws in one sweep, where an axis is one chunk."""
    key = (0, link, sweep) if sweep else (0, link) if link else (0,)
    sequence = np.random.SeedSequence(5, spawn_key=key)
    return np.random.default_rng(sequence).integers(0, 1 << 60, size)


def test_no_two_sweeps_or_kernels_draw_the_same_numbers(any_pool):
    with sc.SharedArray.zeros((4, 6), int) as one, sc.SharedArray.zeros((4, 6), int) as other:
        first, second = ((draw, sc.split(x, 1), sc.rng(5), sc.sweep) for x in (one, other))
        sc.parallel_iterate([first, second], times=4, chunksize=6, pool=any_pool)
        for link, x in enumerate((one, other)):
            np.testing.assert_array_equal(x, [drawn(link, sweep, 6) for sweep in range(4)])
        assert len(np.unique([one, other])) == 48


@nb.njit
def noisy(x, rng):
    for i in range(x.size):
        x[i] += rng.standard_normal()
    return x.size


def test_a_random_walk_is_the_same_for_any_pool_and_diffuses(any_pool):
    def walk(pool, **options):
        with sc.SharedArray.zeros(500) as x:
            sc.parallel_iterate(noisy, x, sc.rng(3), times=30, pool=pool, **options)
            return x.array.copy()

    until = {"until": lambda number: False, "every": 7}
    with sc.Pool(backend="serial") as serial:
        np.testing.assert_array_equal(walk(any_pool, **until), walk(serial, **until))
    assert walk(any_pool, **until).std() < 10  # sqrt(30); noise that repeats gives 30


def test_numbers_of_sweeps_beside_an_offset_in_a_longer_array(any_pool):
    def tell(x, first, sweep):
        x[:] = 100 * first + sweep

    for kernel in (tell, nb.njit(tell)):
        with sc.SharedArray.zeros(1, int) as x:
            sc.parallel_iterate(kernel, x, sc.offset + 5, sc.sweep, times=3, pool=any_pool)
            assert x[0] == 502


def test_until_of_an_axis_without_elements_is_refused(any_pool):
    with sc.SharedArray.zeros(0) as x, pytest.raises(ValueError, match="until: .* no elements"):
        sc.parallel_iterate(noisy, x, sc.rng(1), times=3, until=bool, pool=any_pool)

"""`sc.rng`: the same numbers wherever chunks run; generators that would not are refused."""

from __future__ import annotations

import functools
import itertools
import os
import random

import numba as nb
import numpy as np
import pytest
from numpy.random import SeedSequence, default_rng

import shmcompute as sc
from shmcompute.config import START_METHODS


def draw(x, rng):
    x[:] = rng.random(x.size)


@nb.njit
def draw_jitted(x, rng):
    for i in range(x.size):
        x[i] = rng.random()


def expected(length, sequence, chunksize=None):
    if chunksize is None:
        blocks = min(128, length)
        edges = [length * block // blocks for block in range(blocks + 1)]
    else:
        edges = [*range(0, length, chunksize), length]
    pairs = list(itertools.pairwise(edges))
    children = sequence.spawn(len(pairs))
    return np.concatenate(
        [default_rng(own).random(b - a) for own, (a, b) in zip(children, pairs, strict=True)]
    )


@pytest.mark.parametrize("kernel", [draw, draw_jitted])
def test_chunks_have_the_generators_that_numpy_spawns(any_pool, kernel):
    for length, chunksize, schedule in [
        (1000, None, "guided"),
        (70, 9, "dynamic"),
        (3, 1, "static"),
    ]:
        with sc.SharedArray.zeros(length) as arr:
            options = {"chunksize": chunksize, "schedule": schedule, "pool": any_pool}
            for _ in range(2):
                sc.parallel_apply(kernel, arr, sc.rng(7), **options)
                np.testing.assert_array_equal(arr, expected(length, SeedSequence(7), chunksize))


@pytest.mark.parametrize("more", [{"retries": 1}, {"debug": True}, {"timeout": 60}])
def test_options_change_no_number(any_pool, more):
    with sc.SharedArray.zeros(500) as arr:
        sc.parallel_apply(draw, arr, sc.rng(7), pool=any_pool, **more)
        np.testing.assert_array_equal(arr, expected(500, SeedSequence(7)))


@pytest.mark.parametrize("workers", range(1, 8))
def test_nor_do_workers(workers):
    with sc.Pool(workers, backend="threads") as pool, sc.SharedArray.zeros(500) as arr:
        for kernel in (draw, draw_jitted):
            sc.parallel_apply(kernel, arr, sc.rng(7), pool=pool)
            np.testing.assert_array_equal(arr, expected(500, SeedSequence(7)))


def test_a_chunk_that_is_run_again_draws_the_same_numbers(tmp_path):
    flag = tmp_path / "died"

    def kernel(x, rng, number):
        x[:] = rng.random(x.size)
        if number == 3 and not flag.exists():
            flag.touch()
            os._exit(1)

    with sc.Pool(2) as pool, sc.SharedArray.zeros(500) as arr:
        sc.parallel_apply(kernel, arr, sc.rng(7), sc.chunk, retries=1, pool=pool)
        np.testing.assert_array_equal(arr, expected(500, SeedSequence(7)))


def test_links_of_a_chain_draw_other_numbers(any_pool):
    def second(x, rng):
        x -= rng.random(x.size)

    with sc.SharedArray.zeros(100) as arr:
        sc.parallel_apply([draw, second], arr, sc.rng(7), chunksize=50, pool=any_pool)
        (a, b), size = SeedSequence(7).spawn(2), 50
        own = [default_rng(one).random(size) for one in (a, b)]
        then = [default_rng(SeedSequence(7, spawn_key=(i, 1))).random(size) for i in (0, 1)]
        np.testing.assert_array_equal(arr, np.concatenate(own) - np.concatenate(then))


def test_a_range_of_numbers_is_cut_by_its_length_too(any_pool):
    def kernel(first, last, out, rng):
        out[first - 5 : last - 5] = rng.random(last - first)

    with sc.SharedArray.zeros(500) as arr:
        sc.parallel_for(kernel, 5, 505, sc.shared(arr), sc.rng(7), pool=any_pool)
        np.testing.assert_array_equal(arr, expected(500, SeedSequence(7)))


@pytest.mark.parametrize(
    "seed",
    [0, 2**200, [1, 2], (3, 4, 5), np.int32(6), np.arange(3), np.arange(3, dtype="u4")],
)
def test_a_seed_is_what_numpy_takes(seed):
    for given in (seed, SeedSequence(seed)):
        one, other = sc.rng(given).generator(0), default_rng(SeedSequence(seed).spawn(1)[0])
        assert one.integers(2**62) == other.integers(2**62)
        hash(sc.rng(given))


def test_a_sequence_stays_as_it_is_and_its_children_are_not_had_twice():
    sequence = SeedSequence(3, spawn_key=(9,), pool_size=8)
    sequence.spawn(2)
    rng = sc.rng(sequence)
    assert rng == sc.rng(sequence)
    assert sequence.n_children_spawned == 2
    third = default_rng(sequence.spawn(1)[0])
    assert rng.generator(0).integers(2**62) == third.integers(2**62)


def test_no_seed_is_another_one_each_time():
    assert sc.rng(None).generator(0).integers(2**62) != sc.rng(None).generator(0).integers(2**62)


@pytest.mark.parametrize("seed", [1.5, -1, object(), default_rng(0), [1, -2]])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises((TypeError, ValueError), match=r"rng: expected a seed"):
        sc.rng(seed)


@pytest.mark.parametrize(
    "generator",
    [default_rng(0), np.random.PCG64(0), np.random.RandomState(0), random.Random(0)],
    ids=lambda one: type(one).__name__,
)
def test_a_generator_is_refused_with_the_way_out(any_pool, generator):
    with sc.SharedArray.zeros(10) as arr:
        for given in (generator, [generator], (1, generator), {"rng": generator}):
            with pytest.raises(TypeError, match=r"argument 1 .*sc\.rng\(seed\)"):
                sc.parallel_apply(draw, arr, given, pool=any_pool)
        for kernel in (functools.partial(draw, rng=generator), functools.partial(print, generator)):
            with pytest.raises(TypeError, match=r"partial .*sc\.rng\(seed\)"):
                sc.parallel_apply(kernel, arr, pool=any_pool)
        assert not arr.array.any()


def drawn_by_chance(out):
    out[0] = random.random()
    out[1] = np.random.random()


@nb.njit
def drawn_by_numba(out):
    out[0] = np.random.random()
    out[1] = np.random.normal()


@nb.njit
def seed_numba(seed):
    np.random.seed(seed)


@pytest.mark.long
@pytest.mark.parametrize("method", [*START_METHODS, "threads"])
def test_no_two_workers_start_with_the_same_state(method):
    """NumPy's, Python's and Numba's global generators, though the caller's had a seed."""
    np.random.seed(0), random.seed(0), seed_numba(1)
    seen, count = [], 4
    for _ in range(2):
        how = {"backend": method} if method == "threads" else {"start_method": method}
        with sc.Pool(2, **how) as pool, sc.SharedArray.zeros((count, 2)) as arr:
            for kernel in (drawn_by_chance, drawn_by_numba):
                sc.parallel_apply(_rows, arr, kernel, chunksize=1, pool=pool)
                seen += arr.array.ravel().tolist()
    assert len(set(seen)) == len(seen) == 8 * count


def _rows(rows, kernel):
    for row in rows:
        kernel(row)

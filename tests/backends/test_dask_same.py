"""Whatever takes a pool has on a Dask cluster the bits that it has in one thread."""

from __future__ import annotations

import numba as nb
import numpy as np
import pytest
from clusters import dask_pool

import shmcompute as sc

pytest.importorskip("distributed")
X = np.random.default_rng(0).random(1000)


@pytest.fixture(scope="module")
def pool():
    with dask_pool() as pool:
        yield pool


def draw(x, generator):
    x[:] = generator.random(x.size)


def with_scratch(x, scratch):
    scratch[:] = x[: scratch.size]
    x += scratch.sum()


def total(out, x):
    out[...] = x.sum()


def smooth(new, old):
    new[:] = (old[:-2] + old[1:-1] + old[2:]) / 3


@nb.njit
def sum_of(x):
    return x.sum()


@nb.njit
def range_of(first, last, x, out):
    for i in range(first, last):
        out[0] += x[i] * i


def negate_block(x):
    np.negative(x, out=x)


def by_rng(pool, x, y):
    sc.parallel_apply(draw, x, sc.rng(5), pool=pool, chunksize=100)


def by_scratch(pool, x, y):
    sc.parallel_apply(with_scratch, x, sc.scratch((4,), "f8"), pool=pool, chunksize=100)


def by_per_chunk(pool, x, y):
    out = sc.per_chunk(())
    found = sc.parallel_apply(total, out, sc.read(x), pool=pool, chunksize=100)
    return np.array(getattr(out, "array", found))


def by_reduce(pool, x, y):
    return sc.parallel_reduce(sum_of, sc.read(x), combine=np.add, pool=pool, chunksize=70)


def by_scan(pool, x, y):
    sc.parallel_scan(np.add, x, y, pool=pool)


def by_iterate(pool, x, y):
    halo = sc.halo(x, 1, boundary="edge")
    sc.parallel_iterate(smooth, sc.write(y), halo, times=5, pool=pool)


def by_for(pool, x, y):
    out = sc.per_chunk(1)
    found = sc.parallel_for(range_of, 0, 1000, sc.whole(x), out, pool=pool, chunksize=90)
    return np.array(found)


def by_chain(pool, x, y):
    first = smooth, sc.write(y), sc.halo(x, 1, boundary="wrap")
    sc.parallel_apply([first, (np.sqrt, y)], pool=pool, chunksize=33)


def by_blocks(pool, x, y):
    view = x.array.reshape(20, 50)
    sc.parallel_apply(negate_block, view, axis=(0, 1), chunksize=(7, 9), pool=pool)


def by_strides(pool, x, y):
    sc.parallel_apply(negate_block, x[::-3], pool=pool, chunksize=5)


def by_guided(pool, x, y):
    sc.parallel_apply(np.negative, x, pool=pool, schedule="guided")


def submitted(pool, x, y):
    sc.plan(np.negative, x, pool=pool).submit().result(60)


CALLS = [by_rng, by_scratch, by_per_chunk, by_reduce, by_scan, by_iterate, by_for]
CALLS += [by_chain, by_blocks, by_strides, by_guided, submitted]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_the_bits_are_those_of_one_thread(call, pool):
    found = []
    with sc.Pool(1, backend="serial") as serial:
        for one in (pool, serial):
            with sc.SharedArray(X) as x, sc.SharedArray(X) as y:
                returned = call(one, x, y)
                found.append((x.array.copy(), y.array.copy(), returned))
    assert call in (by_per_chunk, by_reduce, by_for) or not np.array_equal(found[0][:2], [X, X])
    for here, there in zip(*found, strict=True):
        np.testing.assert_array_equal(here, there)

"""Random calls in both of Dask's modes and on a cluster; NumPy and memory are the oracles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import leaks
import numba as nb
import numpy as np
import pytest

import shmcompute as sc

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")
from against_numpy import trial  # noqa: E402  # it imports Dask

PROGRAM = Path(__file__).with_name("against_numpy.py")
with leaks.kept():  # the threads of its scheduler
    da.ones(64, chunks=1).sum().compute()


@pytest.mark.parametrize("seed", range(60))
def test_random_calls(seed):
    trial(seed)


def test_random_calls_with_array_expressions():
    done = subprocess.run(
        [sys.executable, PROGRAM, "60", "120"], capture_output=True, text=True, timeout=120,
        env={**os.environ, "DASK_ARRAY__QUERY_PLANNING": "True"},
    )  # fmt: skip
    assert done.stdout.startswith("equal"), done.stderr
    if "True" not in done.stdout:
        pytest.skip("this Dask has no array expressions")


@nb.njit
def scale(x, first, factor):
    for i in range(x.size):
        x[i] = x[i] * factor + (first + i)


def test_on_a_cluster_what_was_persisted_there_stays():
    distributed = pytest.importorskip("distributed")
    x = np.random.default_rng(0).random(1000)
    with leaks.kept():
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        )
        with cluster, distributed.Client(cluster):
            kept = da.from_array(x, chunks=100).persist()
            ones = da.ones(1000, chunks=100).persist()  # of stride 0
            for _ in range(2):
                found = sc.applied(scale, kept, sc.offset, 3.0).compute()
                np.testing.assert_array_equal(found, x * 3 + np.arange(1000))
                np.testing.assert_array_equal(sc.applied(np.negative, ones).compute(), -1)
                np.testing.assert_array_equal(kept.compute(), x)
                np.testing.assert_array_equal(ones.compute(), 1)
            total = sc.parallel_reduce(np.sum, sc.read(kept), combine=np.add)
            with sc.SharedArray(x) as arr:
                here = sc.parallel_reduce(np.sum, sc.read(arr), combine=np.add, chunksize=100)
            assert total == here


@nb.njit
def increase(x):
    for i in range(x.size):
        x[i] += 1


@nb.njit
def total(x):
    return x.sum()


@nb.njit
def parts(x):
    return x.min(), x.sum()


@nb.njit
def table(x):
    found = np.zeros(3, x.dtype)
    for i in range(x.size):
        found[i % 3] += x[i]
    return found


def python_parts(x):
    return float(x.sum()), x.size


KERNELS = [(total, np.add), (parts, (np.minimum, np.add)), (table, np.add), (np.sum, np.maximum)]
KERNELS += [(python_parts, (np.add, np.add))]


def alike(one, other):
    if isinstance(one, tuple):
        return type(one) is type(other) and all(map(alike, one, other))
    same = type(one) is type(other) and np.asarray(one).dtype == np.asarray(other).dtype
    return same and np.array_equal(one, other)


@pytest.mark.parametrize("length", [1000, 300, 7, 1])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4", "u1"])
@pytest.mark.parametrize("pair", KERNELS, ids=lambda pair: pair[0].__name__)
def test_reductions_have_the_bits_and_types_of_the_same_chunks(pair, dtype, length):
    kernel, combine = pair
    x = (np.random.default_rng(0).random(100 if length == 1 else 1000) * 100).astype(dtype)
    found = sc.parallel_reduce(kernel, sc.read(da.from_array(x, chunks=length)), combine=combine)
    expected = sc.parallel_reduce(
        kernel, sc.read(x), combine=combine, chunksize=length, backend="threads"
    )
    assert alike(found, expected), (found, expected)


@nb.njit
def steps(window, weight):
    found = 0.0
    for i in range(window.size - 1):
        found += abs(window[i + 1] - window[i]) * weight[0]
    return found


@nb.njit
def steps_of(x, window, first):
    return x[0] * first + window[-1]


def test_reductions_with_halo_whole_and_offset():
    x = np.random.default_rng(0).random(100)
    blocks = da.from_array(x, chunks=30)
    options = {"combine": np.add, "chunksize": 30, "backend": "threads"}
    for boundary in ("edge", "wrap", 2.5):
        halo, here = (sc.halo(one, (1, 2), boundary=boundary) for one in (blocks, x))
        weight = np.array([0.5])
        found = sc.parallel_reduce(steps, halo, sc.whole(weight), combine=np.add)
        assert found == sc.parallel_reduce(steps, here, sc.whole(weight), **options)
        found = sc.parallel_reduce(steps_of, sc.read(blocks), halo, sc.offset, combine=np.add)
        assert found == sc.parallel_reduce(steps_of, sc.read(x), here, sc.offset, **options)


@pytest.mark.parametrize("kernel", [total, parts, np.sum], ids=lambda kernel: kernel.__name__)
def test_reductions_of_nothing_are_those_of_memory(kernel):
    combine, initial = (np.add, 5) if kernel is not parts else ((np.minimum, np.add), (9, 1.0))
    empty = da.from_array(np.empty(0), chunks=4)
    with pytest.raises(ValueError, match="nothing to reduce"):
        sc.parallel_reduce(kernel, sc.read(empty), combine=combine)
    given = {"combine": combine, "initial": initial}
    found = sc.parallel_reduce(kernel, sc.read(empty), **given)
    assert alike(
        found, sc.parallel_reduce(kernel, sc.read(np.empty(0)), **given, backend="threads")
    )
    one = da.from_array(np.arange(4.0), chunks=2)
    gaps = da.concatenate([one[:2], one[2:2], one[2:]])
    assert alike(
        sc.parallel_reduce(kernel, sc.read(gaps), combine=combine),
        sc.parallel_reduce(kernel, sc.read(np.arange(4.0)), combine=combine, chunksize=2,
                           backend="threads"),
    )  # fmt: skip


def test_a_whole_array_is_what_it_was_when_the_call_was_made():
    def add(x, table):
        x += table[0]

    table = np.ones(3)
    new = sc.applied(add, da.zeros(4, chunks=2), sc.whole(table))
    table[:] = 100
    np.testing.assert_array_equal(new.compute(), 1)


def test_to_zarr_over_what_is_read_is_dasks_own_trap(tmp_path):
    """It empties the store before it computes; whatever was computed would come to the same."""
    zarr = pytest.importorskip("zarr")
    with leaks.kept():
        for compute in (lambda x: x + 1, lambda x: sc.applied(increase, x)):
            path = str(tmp_path / "x")
            zarr.create_array(path, data=np.arange(10.0), chunks=5, overwrite=True)
            compute(da.from_zarr(path)).to_zarr(path, overwrite=True)
            assert (zarr.open_array(path)[...] == 1).all()
            zarr.create_array(path, data=np.arange(10.0), chunks=5, overwrite=True)
            # This is how.
            sc.parallel_apply(increase, zarr.open_array(path), backend="threads")
            np.testing.assert_array_equal(zarr.open_array(path)[...], np.arange(10.0) + 1)

"""Chains: each chunk goes through all kernels before the next one."""

from __future__ import annotations

import kernels
import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import KernelTypeError
from shmcompute.system import cores
from shmcompute.testing import shared


@nb.njit
def add(x, y):
    for i in range(x.size):
        x[i] += y[i]


@pytest.mark.long
def test_a_chain_is_its_kernels_one_after_the_other(any_pool, any_storage):
    with (
        shared(np.linspace(-1, 1, 1001), any_storage) as arr,
        shared(np.arange(1001.0), any_storage) as other,
    ):
        expected = arr.array.copy()
        sc.parallel_apply(
            [
                (kernels.affine, arr, 3.0, 1.0),
                np.negative,
                (add, arr, sc.read(other)),
                kernels.Half(),
            ],
            arr,
            pool=any_pool,
        )
        np.testing.assert_array_equal(arr.array, (-(expected * 3 + 1) + other.array) / 2)


def test_a_chain_of_jitted_kernels(any_pool):
    with sc.SharedArray(np.ones(1000)) as arr:
        links = [(kernels.affine, arr, 2.0, 1.0), (kernels.affine, arr, 10.0, 0.0)]
        sc.parallel_apply(links, arr, chunksize=7, pool=any_pool)
        np.testing.assert_array_equal(arr.array, 30.0)
        step = sc.plan([(kernels.affine, arr, 1.0, 1.0), add_ones], arr, pool=any_pool)
        step()
        step()
        np.testing.assert_array_equal(arr.array, 34.0)


@nb.njit
def add_ones(x):
    for i in range(x.size):
        x[i] += 1


def test_blocks_fit_in_the_cache_and_are_no_smaller(pools):
    size = cores.cache() // 8 * 8
    x = np.zeros(size)
    step = sc.plan([np.negative, np.sqrt], x, pool=pools["serial"])
    start, stop = step.chunks[0]
    assert cores.cache() // 4 < (stop - start) * 8 <= cores.cache() // 2
    watched = sc.plan(np.negative, np.zeros(4 * size), retries=1, pool=pools["serial"])
    start, stop = watched.chunks[0]
    assert cores.cache() < (stop - start) * 8 <= 2 * cores.cache()
    assert sc.plan([np.negative, np.sqrt], x, chunksize=10, pool=pools["serial"]).chunks[0] == (
        0,
        10,
    )


def test_a_failure_names_the_chunk_and_the_kernels(any_pool):
    with sc.SharedArray(np.arange(4.0)) as arr:
        with pytest.raises(ValueError, match="zero") as caught:
            sc.parallel_apply(
                [add_ones, (kernels.affine, arr, 1.0, -1.0), kernels.fails], arr, pool=any_pool
            )
        assert any("fails" in note and "in chunk [0" in note for note in caught.value.__notes__)


def test_what_would_see_half_of_another_link_is_refused(pools):
    pool = pools["serial"]
    x, y, z = np.zeros((8, 8)), np.zeros(8), np.zeros(8)
    with pytest.raises(ValueError, match="sees in other parts"):
        sc.parallel_apply([add_ones, (np.add, z, sc.whole(y))], y, pool=pool)
    with pytest.raises(ValueError, match="sees in other parts"):
        sc.parallel_apply([np.negative, (np.negative, sc.split(x, axis=1))], x, pool=pool)
    with pytest.raises(ValueError, match="sees in other parts"):
        sc.parallel_apply([np.negative, (np.negative, y[::-1])], y, pool=pool)
    with pytest.raises(ValueError, match="one length"):
        sc.parallel_apply([np.negative, (np.negative, np.zeros(3))], y, pool=pool)


def test_an_empty_chain_and_a_wrong_link_are_refused(pools):
    pool, x = pools["serial"], np.zeros(3)
    with pytest.raises(ValueError, match="at least one kernel"):
        sc.parallel_apply([], x, pool=pool)
    with pytest.raises(TypeError, match="expected a callable"):
        sc.parallel_apply([np.negative, "np.sqrt"], x, pool=pool)
    with pytest.raises(KernelTypeError):
        sc.parallel_apply([np.negative, kernels.returns], x, pool=pool)
    assert not x.any()

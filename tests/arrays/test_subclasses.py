"""Subclasses of ndarray: nowhere are they taken for their elements without a word."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import shmcompute as sc


class Metres(np.ndarray):
    """What a library of units might have."""


def masked(x):
    return np.ma.masked_array(x, np.arange(x.size).reshape(x.shape) == 1)


def matrix(x):
    return x.view(np.matrix)


def metres(x):
    return x.view(Metres)


KINDS = [masked, matrix, metres]


@pytest.mark.parametrize("kind", KINDS)
def test_who_takes_elements_refuses_what_means_more(kind):
    given = kind(np.zeros((2, 2)))
    way_out = "filled" if kind is masked else "np.asarray"
    with sc.ArrayQueue((2, 2), float, 1) as queue:
        for take in (
            sc.SharedArray,
            lambda x: sc.SharedArray(x, dtype="f4"),
            lambda x: sc.SharedArray([x, x]),
            lambda x: sc.SharedArray([np.zeros((2, 2)), (x, x)[:1]]),
            lambda x: sc.SharedArray.full((2, 2), x),
            queue.put,
        ):
            with pytest.raises(TypeError, match=way_out):
                take(given)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_get_none(kind, any_pool):
    with sc.SharedArray(np.zeros((2, 2))) as arr, sc.SharedArray(np.zeros((2, 2))) as out:
        view = kind(arr.array)
        for args in ([view], [sc.split(view)], [out, sc.read(view)], [out, sc.whole(view)]):
            with pytest.raises(TypeError, match=rf"argument {len(args) - 1} is a "):
                sc.parallel_apply(np.negative, *args, pool=any_pool)


def test_atomics_refuse_them():
    with sc.SharedArray(np.zeros(2, int)) as arr:
        with pytest.raises(TypeError, match="mask"):
            sc.atomic_add(masked(arr.array), 1, 1)
        assert not arr.array.any()


def test_a_manager_refuses_them():
    with sc.SharedArrayManager() as manager:
        with pytest.raises(TypeError, match="filled"):
            manager.arrays["x"] = masked(np.zeros(3))
        with pytest.raises(TypeError, match="filled"):
            manager.SharedArray(masked(np.zeros(3)))


def test_the_ways_out_are_taken():
    given = masked(np.arange(3.0))
    with sc.SharedArray(given.filled(-1)) as arr, sc.SharedArray(given.mask) as mask:
        assert (arr.array == [0, -1, 2]).all()
        assert (mask.array == [False, True, False]).all()
    with sc.SharedArray(np.asarray(metres(np.ones(3)))) as arr:
        assert arr.array.all()


def test_files_and_records_are_arrays_like_any(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(3.0))
    with sc.SharedArray(np.load(path, mmap_mode="r")) as arr:
        assert (arr.array == np.arange(3)).all()
    with sc.SharedArray(np.rec.array([(1, 2.0)], "i4, f8")) as arr:
        assert arr.array["f1"] == 2


def _by_attribute(records, table):
    records.price *= 2 * table.price[0]


def test_records_keep_their_attributes(any_pool):
    with sc.SharedArray(np.ones(4, [("price", "f8"), ("count", "i4")])) as arr:
        view, table = arr.array.view(np.recarray), arr.array.copy().view(np.recarray)
        sc.parallel_apply(_by_attribute, view, sc.whole(table), pool=any_pool)
        sc.parallel_apply(_by_attribute, view, sc.whole(table), pool=any_pool, debug=True)
        assert (arr.array["price"] == 4).all()


class Named(sc.SharedArray):
    label = "none"


def test_a_subclass_of_ours_stays_one():
    with Named(np.ones(2)) as arr:
        arr.label = "mine"
        again = pickle.loads(pickle.dumps(arr))
        assert type(again) is Named
        assert again.label == "mine"
        assert np.shares_memory(again.array, arr.array)

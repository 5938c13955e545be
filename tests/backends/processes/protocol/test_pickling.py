"""What tasks are handed: views of shared memory, of whatever class, are no copies."""

from __future__ import annotations

import numpy as np
import pytest

import shmcompute as sc


class Tagged(np.ndarray):
    tag = "none"


class Slotted(np.ndarray):
    __slots__ = ("tag",)


def _tagged(x, kind=Tagged):
    view = x.view(kind)
    view.tag = "mine"
    return view


MADE = {
    "ndarray": lambda x: x,
    "recarray": lambda x: x.view(np.recarray),
    "matrix": lambda x: x.view(np.matrix),
    "masked": np.ma.masked_array,
    "with attributes": _tagged,
    "with slots": lambda x: _tagged(x, Slotted),
}


def _fill(x):
    x[...] = 7
    return type(x), getattr(x, "tag", None), x


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_view_of_any_class_is_written_in_place_and_stays_of_it(made, process_pool):
    with sc.SharedArray.zeros((2, 3)) as arr:
        view = made(arr.array[:, ::2])
        kind, tag, back = process_pool.submit(_fill, view).result()
        np.testing.assert_array_equal(arr.array, [[7, 0, 7], [7, 0, 7]])
        assert kind is type(view) is type(back)
        assert tag == getattr(view, "tag", None)
        assert np.shares_memory(back, arr.array)


def _attributes(x):
    return x.price.sum(), x[0].count


def test_records_have_their_attributes(process_pool):
    with sc.SharedArray(np.ones(2, [("price", "f8"), ("count", "i4")])) as arr:
        view = arr.array.view(np.recarray)
        assert process_pool.submit(_attributes, view).result() == (2.0, 1)


def _unmask(x):
    x[1] = 5


def test_a_mask_of_ones_own_is_read_and_one_that_is_shared_is_written(pools):
    pool = pools["fork"]
    with sc.SharedArray(np.arange(3.0)) as arr, sc.SharedArray([False, True, False]) as mask:
        assert pool.submit(np.ma.sum, np.ma.masked_array(arr.array, [0, 1, 0])).result() == 2
        with pytest.raises(ValueError, match="read-only"):  # what it would unmask stays masked here
            pool.submit(_unmask, np.ma.masked_array(arr.array, [0, 1, 0])).result()
        shared = np.ma.masked_array(arr.array, mask.array, copy=False)
        pool.submit(_unmask, shared).result()
        assert shared[1] == 5
        assert not mask.array.any()

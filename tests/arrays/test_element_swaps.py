"""Elements that are views are not swapped as those of a list; all other assignments go on."""

from __future__ import annotations

import operator
import random
import warnings

import numpy as np
import pytest

import shmcompute as sc

ROWS = np.arange(12).reshape(6, 2)
RECORDS = np.array([(1, 2.0), (3, 4.0), (5, 6.0)], "i4,f8")
SHUFFLES = [
    np.random.default_rng(0).shuffle,
    np.random.shuffle,
    np.random.RandomState(0).shuffle,
    random.Random(0).shuffle,
]


@pytest.mark.parametrize("shuffle", SHUFFLES)
@pytest.mark.parametrize("data", [ROWS, RECORDS], ids=["rows", "records"])
def test_shuffling_is_refused_though_warnings_are_off(shuffle, data):
    with sc.SharedArray(data) as arr, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TypeError, match=r"as if it were a list.*rng\.shuffle\(arr\.array\)"):
            shuffle(arr)
        np.testing.assert_array_equal(arr.array, data)
        shuffle(arr.array) if shuffle is not SHUFFLES[-1] else None
        assert sorted(arr.array.tolist()) == data.tolist()


@pytest.mark.parametrize("shuffle", SHUFFLES)
def test_numbers_are_no_views(shuffle):
    with sc.SharedArray(np.arange(50)) as arr, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shuffle(arr)
        assert sorted(arr.tolist()) == list(range(50))


def test_assignments_of_its_own_views():
    with sc.SharedArray(ROWS) as arr, sc.SharedArray(RECORDS) as records:
        expected = ROWS.copy()
        for x in (arr, expected):
            x[0] = x[1]
            x[2:4] = x[3:5]
            x[1], x[2] = x[2].copy(), x[1].copy()
            x[5] += 1
            x[..., 0] = x[:, 1]
        np.testing.assert_array_equal(arr.array, expected)
        records[0] = records[2]
        assert records[0] == records[2]
        operator.setitem(arr, 0, ROWS[1])  # no view of it
        with pytest.raises(TypeError, match="as if it were a list"):
            operator.setitem(arr, 0, arr[1])

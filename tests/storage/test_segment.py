"""Segments: who hears of their end, and who owns them."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import shmcompute as sc
from shmcompute import storage as segments
from shmcompute.errors import ClosedError


@pytest.mark.parametrize("storage", ["shm", "file", "array"])
def test_who_watches_hears_of_the_end_once(storage, tmp_path):
    name = tmp_path / "data.npy" if storage == "file" else None
    arr = sc.SharedArray(np.ones(3), storage=storage, name=name)
    segment, told = arr.segment, []
    assert segment.watch(told.append)
    assert not told
    arr.close()
    assert told == [segment.handle]
    assert not segment.watch(told.append)  # the moment has passed
    assert told == [segment.handle]
    with pytest.raises(ClosedError):
        segment.check()


def test_what_was_given_away_is_not_removed_by_who_made_it():
    arr = sc.SharedArray(np.arange(3.0), storage="shm")
    handle = arr.segment.handle
    segments.give([handle])
    assert not arr.segment.owner
    arr.close()
    del arr
    gc.collect()
    again = segments.adopt(handle)
    try:
        np.testing.assert_array_equal(again, [0, 1, 2])
        assert segments.mapped(handle).owner
    finally:
        del again
        gc.collect()
    with pytest.raises(sc.errors.SegmentNotFoundError):
        sc.SharedArray.attach(handle.name)

"""Caches know a SharedArray by its content, for it changes under one handle."""

from __future__ import annotations

import io
import pickle
import sys
import types

import numpy as np
import pytest

import shmcompute as sc


class Hasher(pickle._Pickler):
    """As joblib's, a pickler in Python."""


def _stub(value):
    """What joblib would hash, without joblib."""
    buffer = io.BytesIO()
    Hasher(buffer, protocol=3).dump(value)
    return buffer.getvalue()


@pytest.fixture(params=["stub", "joblib", "joblib.Memory", "dask"])
def identify(request, monkeypatch, tmp_path):
    """Functions that tell whether a value is what it was."""
    if request.param == "stub":
        monkeypatch.setitem(sys.modules, "joblib.hashing", types.SimpleNamespace(Hasher=Hasher))
        return _stub
    if request.param == "dask":
        return pytest.importorskip("dask.base").tokenize
    joblib = pytest.importorskip("joblib")
    if request.param == "joblib":
        return joblib.hash
    return joblib.Memory(tmp_path, verbose=0).cache(_content)


def _content(value):
    value = value[0] if isinstance(value, list) else getattr(value, "array_within", value)
    return pickle.dumps(np.asarray(value))


class Holder:
    def __init__(self, array):
        self.array_within = array


def test_a_changed_array_is_another_and_an_equal_one_the_same(identify):
    with sc.SharedArray(np.ones(3)) as arr, sc.SharedArray(np.ones(3)) as equal:
        for hold in (lambda x: x, lambda x: [x, 1], Holder):
            value, same = hold(arr), hold(equal)
            arr[:] = 1
            before = identify(value)
            assert identify(value) == identify(same) == before
            arr[1] = 5
            assert identify(value) != before


def test_what_is_sent_is_a_handle_though_joblib_is_there(identify):
    with sc.SharedArray(np.zeros(10_000)) as arr:
        for dumps in (pickle.dumps, pickle._dumps):
            assert len(dumps(arr)) < 1000

"""A SharedArray has ndarray's methods and attributes, which do what they do on the array within."""

from __future__ import annotations

import copy
import gc
import io
import operator
import random
import sys
import warnings

import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import ClosedError

VALUES = [
    np.arange(12.0).reshape(3, 4) - 5,
    np.asfortranarray(np.arange(12, dtype="i4").reshape(3, 4)),
    np.array([3, 1, 2], "u1"),
    np.array([1 + 2j, 0, 3]),
    np.array([True, False]),
    np.array(["b", "a"]),
    np.array(["2020-01-02", "NaT"], "M8[D]"),
    np.array([(1, 2.5), (0, 3.5)], np.dtype("i1,f8", align=True)),
    np.array(2.5),
    np.array(7),
    np.zeros((0, 3)),
]
METHODS = {
    "sum prod mean var std min max argmin argmax any all cumsum cumprod": [(), (0,), (-1,)],
    "argsort": [(), (0,)],
    "searchsorted": [(1,), ([1, 2], "right")],
    "clip": [(1,), (1, 3), (None, 2)],
    "round": [(), (1,)],
    "copy": [(), ("F",)],
    "astype": [("f4",), ("S4",), (complex, "F")],
    "reshape": [(-1,), ((2, 2, -1),), (2, -1)],
    "ravel": [(), ("F",)],
    "transpose": [(), (1, 0), ((0,),)],
    "swapaxes": [(0, 1), (0, -1)],
    "squeeze": [(), (0,)],
    "view": [(), ("u1",), (np.ndarray,)],
    "item": [(), (0,), (1, 2)],
    "tobytes tolist": [()],
}
ATTRIBUTES = "T strides itemsize flags real imag shape dtype ndim size nbytes __array_interface__"
ALL = [*" ".join(METHODS).split(), *ATTRIBUTES.split(), "sort", "fill", "ptp", "flat", "data"]
ALL += ["ctypes", "tofile", "__array_priority__"]


def _outcome(call):
    with np.errstate(all="ignore"):
        try:
            return call()
        except Exception as error:
            return type(error)


def _same(got, want):
    if not isinstance(want, (np.ndarray, np.generic)):
        return type(got) is type(want) and got == want
    kinds = [(type(one), one.dtype, one.shape, one.strides) for one in (got, want)]
    if want.dtype.names:  # of which some bytes are padding
        return kinds[0] == kinds[1] and got.tolist() == want.tolist()
    return kinds[0] == kinds[1] and got.tobytes() == want.tobytes()


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("x", VALUES, ids=str)
def test_methods_do_the_same(x):
    with sc.SharedArray(x) as arr:
        for names, calls in METHODS.items():
            for name in names.split():
                for args in calls:
                    call = operator.methodcaller(name, *args)
                    got, want = (_outcome(lambda a=a, c=call: c(a)) for a in (arr, arr.array))
                    assert _same(got, want), (name, args, got, want)
                    if isinstance(want, np.ndarray):
                        mine, theirs = (np.shares_memory(a, arr.array) for a in (got, want))
                        assert mine == theirs


@pytest.mark.parametrize("x", VALUES, ids=str)
def test_attributes_are_the_same(x):
    with sc.SharedArray(x) as arr:
        for name in ATTRIBUTES.split():
            got, want = (_outcome(lambda a=a, n=name: getattr(a, n)) for a in (arr, arr.array))
            if name != "__array_interface__" or x.dtype.names is None:
                assert _outcome(lambda g=got, w=want: _same(g, w) or g == w) is True, name
        assert arr.__array_priority__ == arr.array.__array_priority__
        assert list(arr.flat) == list(arr.array.flat) or x.dtype.kind == "M"
        assert arr.ctypes.data == arr.array.ctypes.data


def test_methods_that_change_it():
    with sc.SharedArray([3.0, 1.0, 2.0]) as arr, sc.SharedArray.zeros(3) as out:
        assert arr.sort() is None
        assert arr.tolist() == [1, 2, 3]
        assert arr.cumsum(out=out) is out
        assert arr.sum(0, None, out[0:1].reshape(())) == out[0] == 6
        assert np.shares_memory(arr.clip(2, out=arr), arr.array)
        assert arr.tolist() == [2, 2, 3]
        arr.real = out
        arr.flat[1] = 9
        assert arr.tolist() == [6, 9, 6]
        arr.flat = [1, 2]
        assert arr.tolist() == [1, 2, 1]
        assert arr.fill(4) is None
        assert (arr.min(), arr.ptp(), arr.ptp(keepdims=True).shape) == (4, 0, (1,))
        with pytest.raises(AttributeError, match="strides of a SharedArray can't be set"):
            arr.strides = (16,)


def test_a_shared_array_among_the_arguments_is_taken_for_its_array():
    with sc.SharedArray([3, 1, 2]) as arr, sc.SharedArray([1, 0, 1]) as other:
        assert arr.searchsorted(other, sorter=arr.argsort()).tolist() == [0, 0, 0]
        assert arr.sum(where=other == 1) == 5
        assert arr.sum(where=other.astype(bool), initial=1) == 6
        assert arr.clip(other, arr).tolist() == [3, 1, 2]


def test_tofile_writes_the_elements(tmp_path):
    with sc.SharedArray([1.0, 2.0]) as arr:
        arr.tofile(tmp_path / "x")
        assert np.fromfile(tmp_path / "x").tolist() == [1, 2]


@pytest.mark.parametrize("name", ALL)
def test_what_is_closed_says_so(name):
    arr = sc.SharedArray([1.0, 2.0])
    arr.close()
    kept = ("shape", "dtype", "ndim", "size", "nbytes", "__array_priority__")
    if name in kept:
        getattr(arr, name)
        return
    with pytest.raises(ClosedError):
        method = getattr(arr, name)
        method(
            *{"fill": (1,), "tofile": (io.BytesIO(),), "view": (), "astype": ("f4",)}.get(name, ())
        )


def test_what_is_closed_is_no_array():
    arr = sc.SharedArray([1.0])
    arr.close()
    for use in (np.asarray, np.sum, bytes, float, memoryview, format, copy.copy, list, len):
        with pytest.raises((ClosedError, TypeError), match="closed|bytes-like"):
            use(arr)


def test_a_name_that_only_an_ndarray_has_is_told_where_to_find():
    with sc.SharedArray([1.0]) as arr:
        for name in ("dot", "take", "resize", "setflags", "byteswap", "mT"):
            with pytest.raises(AttributeError, match=rf"use \.array\.{name}"):
                getattr(arr, name)
        with pytest.raises(AttributeError, match="no attribute 'nothing'$"):
            arr.nothing  # noqa: B018
        assert not hasattr(arr, "__array_struct__")


def test_copies_are_arrays_of_their_own():
    for make in (copy.copy, copy.deepcopy):
        with sc.SharedArray(np.asfortranarray(np.eye(3))) as arr, make(arr) as other:
            assert isinstance(other, sc.SharedArray)
            arr += 1
            np.testing.assert_array_equal(other.array, np.eye(3))
            assert other.strides == arr.strides


def test_without_dimensions_it_is_a_number():
    with sc.SharedArray(7) as arr:
        assert (int(arr), float(arr), operator.index(arr), complex(arr)) == (7, 7.0, 7, 7 + 0j)
        assert (f"{arr}", f"{arr:04d}", f"{arr:.1f}") == ("7", "0007", "7.0")
    with sc.SharedArray(2.5) as arr:
        assert (f"{arr:.2f}", int(arr)) == ("2.50", 2)
        with pytest.raises(TypeError):
            operator.index(arr)
    with sc.SharedArray([1.0, 2.0]) as arr:
        assert f"{arr}" == str(arr)
        for use in (float, int, operator.index, lambda a: f"{a:.1f}"):
            with pytest.raises(TypeError):
                use(arr)


def test_it_is_compared_with_anything():
    with sc.SharedArray([1.0, 2.0]) as arr:
        assert (arr == None).tolist() == [False, False]  # noqa: E711
        assert (arr != "text").tolist() == [True, True]
        assert (arr == object()).tolist() == [False, False]
        assert ([1, 5] == arr).tolist() == [True, False]  # noqa: SIM300
        for other in (object(), "a", None):
            with pytest.raises(TypeError):
                arr < other  # noqa: B015
        assert 2.0 in arr
        assert "a" not in arr


@pytest.mark.parametrize("dtype", ["?", "f2", "f8", ">f8", "g", "c16", "U3", "S3", "V4", "M8[s]"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numpy_takes_the_very_memory(dtype, order):
    x = np.asarray(np.ones((2, 3)).astype("S4" if dtype == "V4" else dtype), order=order)
    with sc.SharedArray(x.astype(dtype)) as arr:
        for view in (np.asarray(arr), np.array(arr, copy=False), np.asanyarray(arr)):
            assert type(view) is np.ndarray
            assert (view.dtype, view.shape, view.strides) == (arr.dtype, arr.shape, arr.strides)
            assert view.ctypes.data == arr.ctypes.data
            assert view.flags.writeable


@pytest.mark.parametrize(
    "dtype",
    [np.dtype("i1,f8"), np.dtype("i1,f8", align=True), np.dtype((np.record, [("a", "i4")])), "V0"],
)
def test_numpy_learns_all_of_a_structure(dtype):
    """A buffer and an array interface tell neither of padding nor of records."""
    with sc.SharedArray.zeros(3, dtype) as arr:
        assert repr(np.asarray(arr).dtype) == repr(arr.dtype)
        assert repr(np.array(arr, copy=False).dtype) == repr(arr.dtype)


def test_views_that_numpy_makes_outlive_it():
    """An array interface is a bare address: whoever takes it must hold the memory, too."""
    arr = sc.SharedArray(np.arange(4.0))
    view, interface = np.asarray(arr), arr.__array_interface__
    address, read_only = interface["data"]
    assert (address, read_only) == arr.array.__array_interface__["data"]
    assert interface == arr.array.__array_interface__
    assert arr.array.__array_interface__ == interface
    assert repr(interface["data"]) == repr((address, read_only))
    arr.close()
    gc.collect()
    view += 1
    assert view.tolist() == [1, 2, 3, 4]
    assert memoryview(interface["data"]).cast("d").tolist() == [1, 2, 3, 4]


def test_memory_goes_back_at_once_though_numpy_looked_at_it():
    arr = sc.SharedArray(np.arange(4.0))
    np.asarray(arr)
    segment = arr.segment
    arr.close()
    gc.collect()
    assert not sc.storage.live() or segment not in sc.storage.live()


def test_what_is_read_only_stays_so(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3.0))
    with sc.SharedArray.open(tmp_path / "x.npy", "r") as arr:
        assert not np.asarray(arr).flags.writeable
        assert arr.__array_interface__["data"][1] is True


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python asks for __buffer__ from 3.12 on")
def test_it_is_a_buffer():
    for x in VALUES:
        with sc.SharedArray(x) as arr:
            want = _outcome(lambda x=x: memoryview(x).format)
            if x.dtype.isalignedstruct:
                want = BufferError  # it would tell less than there is
            assert _outcome(lambda a=arr: memoryview(a).format) in (want, TypeError, BufferError)
    with sc.SharedArray([1.0, 2.0]) as arr:
        view = memoryview(arr)
        view[0] = 5
        arr.close()
        assert view.tolist() == [5, 2]


def test_bytes_are_those_of_the_elements():
    for x in VALUES:
        with sc.SharedArray(x) as arr:
            assert bytes(arr) == arr.array.tobytes()


def test_rows_are_not_lost_where_elements_are_swapped():
    with sc.SharedArray(np.arange(6).reshape(3, 2)) as arr:
        for shuffle in (np.random.default_rng(0).shuffle, np.random.shuffle):
            with pytest.raises(UserWarning):
                shuffle(arr)
        assert arr.tolist() == np.arange(6).reshape(3, 2).tolist()
        random.Random(0).shuffle(line := sc.SharedArray(np.arange(9)))
        assert sorted(line.tolist()) == list(range(9))
        line.close()


def test_a_subclass_is_shuffled_no_more_than_its_base():
    class Named(sc.SharedArray):
        pass

    message = "you are shuffling a 'Named' object which is not a subclass of 'Sequence'"
    assert [what for what, text, *_ in warnings.filters if text and text.match(message)] == [
        "error"
    ]

"""Wrong kernels under ``debug=True``: found, named, and kept from doing harm."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import warnings

import kernels
import numba as nb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import shmcompute as sc
from shmcompute.config import BACKENDS
from shmcompute.errors import OutOfBoundsError, ReadOnlyError
from shmcompute.kernels.python import PythonKernel
from shmcompute.kernels.variants import bounded
from shmcompute.plans.debug_guard import Guard


def _poke(x, offset, value=0x11):
    """Write one byte, counted from the first of the array, wherever it is."""
    ctypes.memset(x.__array_interface__["data"][0] + offset, value, 1)


def _spills(x, offset):
    """Does its work, and more."""
    x += 1
    _poke(x, offset)


@nb.njit
def _set(x, index, value):
    x[index] = value


@nb.njit
def _spills_in_a_callee(x, index):
    _set(x, index, 7.0)


@nb.njit
def _writes_at(x, index):
    x[index] = 7.0


@nb.njit
def _reads_at(x, index):
    x[0] = x[index]


@nb.njit("void(float64[:], int64)", nogil=True)
def _writes_at_eager(x, index):
    x[index] = 7.0


@nb.njit(parallel=True)
def _writes_at_prange(x, index):
    for i in nb.prange(index + 1):
        x[i] = 7.0


@nb.guvectorize(["void(float64[:], int64, float64[:])"], "(n),()->(n)")
def _writes_at_gufunc(x, index, out):
    for i in range(index + 1):
        out[i] = 7.0


@nb.guvectorize(["void(float64[:], float64[:], float64[:])"], "(n),(n)->(n)")
def _writes_its_input(x, y, out):
    for i in range(x.size):
        out[i] = x[i]
        y[i] = -1.0


def _copies(x, out):
    out[...] = x


@pytest.fixture
def arr():
    with sc.SharedArray(np.arange(40.0)) as arr:
        yield arr


def _found(arr, pool, kind, match, kernel, *args, **keywords):
    """The call raises, and the array reads as before but for chunks that were done well."""
    before = arr.array.copy()
    with pytest.raises(kind, match=match) as caught:
        sc.parallel_apply(kernel, *args, pool=pool, debug=True, **keywords)
    np.testing.assert_array_equal(arr.array, before)
    return caught.value


def test_a_write_outside_is_found_named_and_undone(arr, any_pool):
    """It names kernel, argument, chunk, side and reach; nothing was touched; the pool goes on."""

    def kernel(x, offset, start):
        if start == 10:
            _spills(x, offset)

    kernel.__qualname__ = "spills"
    for offset, told in (
        (80, r"up to 8 bytes \(1 element\) past the end"),
        (100, r"up to 24 bytes \(3 elements\) past the end"),
        (-1, r"up to 8 bytes \(1 element\) before the start"),
        (-4000, r"up to 4000 bytes \(500 elements\) before the start"),
    ):
        match = rf"kernel spills wrote {told} of argument 0 \(x: .*float64\) in chunk \[10, 20\)"
        args = arr, offset, sc.offset
        error = _found(arr, any_pool, OutOfBoundsError, match, kernel, *args, chunksize=10)
        assert any("in chunk [10, 20)" in note for note in error.__notes__)
    sc.parallel_apply(kernels.affine, arr, 3.0, 1.0, pool=any_pool, debug=True)
    np.testing.assert_array_equal(arr.array, kernels.expected(np.arange(40.0)))


def test_an_index_out_of_bounds_is_an_index_error(arr, any_pool):
    """Whatever the options of the kernel; of reads, too."""
    for kernel in (
        _writes_at,
        _reads_at,
        _writes_at_eager,
        _writes_at_prange,
        functools.partial(_writes_at, index=20),
        _writes_at_gufunc,
    ):
        args = () if isinstance(kernel, functools.partial) else (20,)
        named = "index 20 is out of bounds for axis 0 with size 20"
        match = "out of bounds" if kernel is _writes_at_gufunc else named
        error = _found(arr, any_pool, IndexError, match, kernel, arr, *args, chunksize=20)
        assert any("in chunk [" in note for note in error.__notes__)


@nb.njit
def _writes_in_two(x, row, column):
    x[row, column] = 7.0


@nb.njit
def _writes_along_a_column(x, row, column):
    x[row][column] = 7.0


@nb.njit
def _fills_a_row(x, row, column):
    x[row, :] = 7.0 + column


@pytest.mark.parametrize("kernel", [_writes_in_two, _writes_along_a_column, _fills_a_row])
@pytest.mark.parametrize(
    ("row", "column"), [(5, 0), (-6, 2), (4, 3), (0, -4), (-5, -3), (2**40, 0)]
)
def test_it_names_index_axis_and_size_as_numpy_does(kernel, row, column):
    try:
        kernel.py_func(np.zeros((5, 3)), row, column)
        expected = None
    except IndexError as error:
        expected = str(error)
    with sc.SharedArray(np.zeros((5, 3))) as arr:
        found = None
        try:
            sc.parallel_apply(kernel, arr, row, column, backend="serial", chunksize=5, debug=True)
        except IndexError as error:
            found = str(error)
            assert type(error) is IndexError
    assert found == expected


def test_other_code_keeps_numbas_own_check():
    @nb.njit(boundscheck=True)
    def theirs(x, index):
        x[index] = 7.0

    bounded(_writes_at).compile("void(float32[:], int64)")
    with pytest.raises(IndexError, match="^index is out of bounds$"):
        theirs(np.zeros(3), 3)


def test_what_a_jitted_kernel_calls_is_stopped_by_the_zones(arr, any_pool):
    _found(arr, any_pool, OutOfBoundsError, "past the end", _spills_in_a_callee, arr, 40)


def test_what_is_between_the_elements_of_a_view_is_guarded_too(arr, pools):
    _found(
        arr,
        pools["serial"],
        OutOfBoundsError,
        "between the elements of",
        _spills,
        arr[::4],
        8,
        chunksize=5,
    )


def test_a_chain_is_done_as_a_whole_or_not_at_all(arr, any_pool):
    """The chunk reads as before its first link; the link that did it is named."""
    chain = [np.negative, (_spills, arr, 320), np.square]
    _found(arr, any_pool, OutOfBoundsError, "kernel _spills wrote", chain, arr, chunksize=40)


def test_links_of_a_chain_see_what_others_wrote(any_pool):
    x = np.arange(5000.0)
    with sc.SharedArray(x) as arr, sc.SharedArray(np.zeros(5000)) as out:
        chain = [np.sqrt, (np.add, out, sc.read(arr), 1.0), (kernels.affine, arr, 3.0, 1.0)]
        sc.parallel_apply(chain, arr, pool=any_pool, debug=True)
        np.testing.assert_array_equal(out.array, np.sqrt(x) + 1)
        np.testing.assert_array_equal(arr.array, np.sqrt(x) * 3 + 1)


def test_what_a_link_may_write_another_may_not(arr, pools):
    def kernel(x):
        x.flags.writeable = True
        x[0] = 99

    chain = [np.negative, (kernel, sc.read(arr))]
    _found(arr, pools["serial"], ReadOnlyError, "kernel .*kernel wrote argument 0", chain, arr)


@pytest.mark.parametrize("marker", [sc.read, sc.whole])
def test_a_write_to_what_is_read_only_is_found(arr, any_pool, marker):
    """However it gets round the flag of the array."""

    def kernel(x, table):
        x += 1
        table.flags.writeable = True
        table[0] = 5

    with sc.SharedArray(np.ones(40)) as table:
        match = r"kernel .* wrote argument 1 \(table: .* read-only"
        _found(arr, any_pool, ReadOnlyError, match, kernel, arr, marker(table))
        with sc.SharedArray(np.zeros(40)) as out:
            match = r"wrote argument 2 \(shape \(\d+,\), float64\)"
            args = out, sc.read(arr), marker(table)
            if marker is sc.read:
                _found(out, any_pool, ReadOnlyError, match, _writes_its_input, *args)
        np.testing.assert_array_equal(table.array, 1.0)


def test_a_kernel_that_raises_leaves_its_chunk_as_it_was(arr, any_pool):
    def kernel(x):
        x[:] = -1
        raise ZeroDivisionError("half-way")

    _found(arr, any_pool, ZeroDivisionError, "half-way", kernel, arr)


def test_targets_that_overlap_are_refused_as_ever(arr, pools):
    for args in (
        (arr[1:], arr[:-1]),
        (np.lib.stride_tricks.sliding_window_view(arr.array, 3, writeable=True),),
    ):
        with pytest.raises(ValueError, match="overlap in memory|repeats its memory"):
            sc.parallel_apply(_copies, *args, pool=pools["serial"], debug=True)


def test_an_array_that_is_given_twice_stays_one(arr, pools):
    """What is written through one argument is seen through the other."""

    def kernel(x, same):
        x[0] = 100
        x[1:] = same[0]

    sc.parallel_apply(kernel, arr, sc.read(arr), pool=pools["serial"], debug=True, chunksize=20)
    np.testing.assert_array_equal(arr.array, 100.0)
    sc.parallel_apply(np.add, arr, sc.read(arr), sc.read(arr), pool=pools["serial"], debug=True)
    np.testing.assert_array_equal(arr.array, 200.0)


def test_a_plan_takes_it_and_runs_again(arr, any_pool):
    step = sc.plan(kernels.add_offset, arr, sc.offset, chunksize=7, pool=any_pool, debug=True)
    for count in range(1, 4):
        step()
        np.testing.assert_array_equal(arr.array, np.arange(40.0) * (count + 1))


def test_numbers_come_with_each_call(arr, pools):
    for value in (1.0, 2.0, -0.5):
        sc.parallel_apply(kernels.affine, arr, 0.0, value, pool=pools["serial"], debug=True)
        np.testing.assert_array_equal(arr.array, value)


@pytest.mark.parametrize("waiting", ["futex", "poll"])
def test_with_retries_what_a_dead_worker_left_is_done_by_others(tmp_path, monkeypatch, waiting):
    monkeypatch.setenv("SHMCOMPUTE_WAIT", waiting)
    flag = str(tmp_path / "died")

    def kernel(x):
        x *= 3
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            x += 1
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    with sc.Pool(2) as pool, sc.SharedArray(np.arange(40.0)) as arr:
        sc.parallel_apply(kernel, arr, chunksize=10, retries=1, pool=pool, debug=True)
        np.testing.assert_array_equal(arr.array, np.arange(40.0) * 3 + 1)


def test_a_kernel_may_reshape_its_view_in_place(arr, pools):
    def kernel(x):
        with warnings.catch_warnings(action="ignore"):  # NumPy 2.5 would rather have it not
            x.shape = (2, -1)
        x[1] = 0

    expected = arr.array.copy()
    expected[10:20] = expected[30:] = 0
    sc.parallel_apply(kernel, arr, chunksize=20, pool=pools["serial"], debug=True)
    np.testing.assert_array_equal(arr.array, expected)


def test_arrays_of_python_objects_are_passed_as_they_are(pools):
    x = np.array([{}, [1], "a"], object)
    sc.parallel_apply(lambda part: part.fill(None), x, pool=pools["threads"], debug=True)
    assert x.tolist() == [None] * 3


def test_workers_compile_nothing(pools):
    """A copy has the Numba type of its original, and the variant comes with its machine code."""
    pool = pools["forkserver"]
    with sc.SharedArray(np.zeros((30, 4), order="F")) as arr:
        count = pool.running.compilations()
        for view in (arr.array, arr.array.T[::-1], arr[1::3]):
            axis = int(view.shape[0] == 4)
            sc.parallel_apply(_fill, view, 2.0, axis=axis, chunksize=7, pool=pool, debug=True)
        assert pool.running.compilations() == count


@nb.njit
def _fill(x, value):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += value


def test_twins_are_made_once_and_only_where_they_are_needed():
    variant = bounded(kernels.affine)
    assert variant.targetoptions["boundscheck"]
    assert bounded(kernels.affine) is variant
    assert bounded(variant) is variant
    assert not kernels.affine.targetoptions.get("boundscheck")


def test_a_kernel_that_is_compiled_anew_is_new_to_its_twin():
    namespace = {"nb": nb, "GAIN": 2.0}
    source = "@nb.njit\ndef kernel(x):\n    for i in range(x.size):\n        x[i] = x[i] * GAIN\n"
    exec(source, namespace)
    with sc.SharedArray(np.ones(4)) as arr:
        for gain in (2.0, 10.0):
            namespace["GAIN"] = gain
            namespace["kernel"].recompile()
            for backend in BACKENDS:
                sc.parallel_apply(namespace["kernel"], arr, backend=backend, debug=True)
        np.testing.assert_array_equal(arr.array, 8000.0)


# What it hints at


def test_a_kernel_that_wrote_nothing_is_told_of(any_pool):
    def kernel(x):
        x = x * 2  # noqa: F841

    with sc.SharedArray(np.ones(9)) as arr:
        with pytest.warns(RuntimeWarning, match="changed nothing") as caught:
            sc.parallel_apply(kernel, arr, pool=any_pool, debug=True)
        step = sc.plan(kernel, arr, pool=any_pool, debug=True)
        with pytest.warns(RuntimeWarning, match="changed nothing") as again:
            step()
        assert {warning.filename for warning in [*caught, *again]} == {__file__}
        sc.parallel_apply(kernel, sc.read(arr), pool=any_pool, debug=True)
        sc.parallel_apply(np.sqrt, arr, pool=any_pool, debug=True)  # which did write its ones


def test_a_kernel_that_holds_what_other_chunks_write_is_told_of(arr, any_pool):
    def kernel(before, x):
        x += before.sum()

    with pytest.warns(RuntimeWarning, match="of its partial, memory that argument 0") as caught:
        step = sc.plan(
            functools.partial(kernel, arr.array), arr, chunksize=10, pool=any_pool, debug=True
        )
    assert caught[0].filename == __file__
    step()
    total = arr.array.sum()
    sc.parallel_apply(functools.partial(kernel, arr.array.copy()), arr, pool=any_pool, debug=True)
    assert arr.array.sum() == total * 41


# The setting


def test_a_pool_takes_the_setting_and_a_call_its_own(arr, monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_DEBUG", "1")
    with sc.Pool(1, backend="serial") as pool:
        with pytest.raises(OutOfBoundsError):
            sc.parallel_apply(_spills, arr, 320, pool=pool)
        with pytest.raises(OutOfBoundsError):
            sc.plan(_spills, arr, 320, pool=pool)()
        with warnings.catch_warnings(action="error"):
            sc.parallel_apply(kernels.affine, arr, 1.0, 0.0, pool=pool, debug=False)
    monkeypatch.setenv("SHMCOMPUTE_DEBUG", "0")
    with sc.Pool(1, backend="serial") as pool:
        assert not pool.debug
    monkeypatch.setenv("SHMCOMPUTE_DEBUG", "yes")
    with pytest.raises(ValueError, match="SHMCOMPUTE_DEBUG: 'yes'; known: '0', '1'"):
        sc.Pool(1, backend="serial")


def test_a_call_with_it_is_not_taken_for_one_without(pools):
    """Whichever was first."""
    with sc.SharedArray(np.zeros(4)) as arr:
        for debug in (False, True, False, True):
            if debug:
                with pytest.raises(IndexError):
                    sc.parallel_apply(_reads_at, arr, 4, pool=pools["serial"], debug=debug)
            else:
                sc.parallel_apply(_reads_at, arr, 1, pool=pools["serial"], debug=debug)


# Copies


SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6)
DTYPES = ["f8", ">i2", "?", "c16", "S3", "U2", "M8[s]", [("a", "i1"), ("b", "f8")]]
PADDED = np.dtype([("a", "i1"), ("b", "f8")], align=True)


@st.composite
def _views(draw):
    """Any view of any array of any bytes: strided, reversed, transposed, misaligned, empty."""
    dtype = np.dtype(draw(st.sampled_from([*DTYPES, PADDED])))
    shape = draw(SHAPES)
    shift = draw(st.integers(0, 9))
    count = int(np.prod(shape)) * dtype.itemsize
    memory = np.frombuffer(bytearray(np.random.default_rng(count).bytes(count + shift)), np.uint8)
    whole = np.ndarray(shape, dtype, memory, shift, order=draw(st.sampled_from("CF")))
    return whole[draw(hnp.basic_indices(shape, min_dims=1, allow_ellipsis=False))].T


def _bytes(view):
    """All of them, padding too."""
    return view.view(f"V{view.itemsize}").tobytes()


@given(view=_views())
def test_a_copy_is_to_a_kernel_what_its_original_is(view):
    """Bit by bit, padding and all; and what is written to it is written back."""
    guard = Guard([[view]])
    (copy,) = guard.arguments(0).at((0, 0))
    assert copy.shape == view.shape
    assert copy.dtype == view.dtype
    assert not np.shares_memory(copy, view)
    assert _bytes(copy) == _bytes(view)
    if view.size:
        assert copy.strides == view.strides
    for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS", "ALIGNED", "WRITEABLE"):
        assert copy.flags[flag] == view.flags[flag]
    copy.view(f"V{view.itemsize}")[...] = np.void(b"\x5a" * view.itemsize)
    guard.check(0, PythonKernel(_copies), (0, 1))
    guard.write_back()
    assert _bytes(view) == b"\x5a" * view.nbytes


@given(view=_views(), data=st.data())
def test_whichever_byte_outside_is_changed_is_found(view, data):
    guard = Guard([[view]])
    (copy,) = guard.arguments(0).at((0, 0))
    low, high = np.lib.array_utils.byte_bounds(copy) if copy.size else (0, 0)
    start = copy.__array_interface__["data"][0]
    if not copy.size:
        low = high = start
    own = np.zeros(high - low, np.bool_)
    if copy.size:
        elements = np.ndarray(copy.shape, f"V{copy.itemsize}", own, start - low, copy.strides)
        elements[...] = np.void(b"\x01" * copy.itemsize)
    place = data.draw(st.integers(-4096, high - low + 4095))
    old = ctypes.string_at(low + place, 1)[0]
    ctypes.memset(low + place, old ^ data.draw(st.integers(1, 255)), 1)
    before = _bytes(view)
    if 0 <= place < high - low and own[place]:
        guard.check(0, PythonKernel(_copies), (0, 1))
    else:
        side = "before" if place < 0 else "past" if place >= high - low else "between"
        with pytest.raises(OutOfBoundsError, match=side):
            guard.check(0, PythonKernel(_copies), (0, 1))
    assert _bytes(view) == before

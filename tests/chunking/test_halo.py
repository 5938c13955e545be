"""Halo: chunks see what `numpy.pad` has there, bit for bit, and what can't be is refused."""

from __future__ import annotations

import pickle

import numba as nb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from told_arrays import array_at

import shmcompute as sc
from shmcompute.chunking import ChunkCall, PaddedPart, Setting, bind, chunks, cut_ends
from shmcompute.errors import KernelTypeError
from shmcompute.kernels import padding

MODES = ["edge", "reflect", "symmetric", "wrap"]
RECORD = np.dtype([("a", "i2"), ("b", "f8"), ("c", "S3")])
DTYPES = ["?", "i1", "u2", ">i4", "f4", "f8", "f2", "c16", "M8[s]", "S5", "U2", RECORD]


@pytest.fixture
def arr():
    with sc.SharedArray(np.arange(10.0)) as arr:
        yield arr


def nothing(*args):
    pass


def padded(x, depth, boundary, axis=0):
    """What `numpy.pad` makes of it."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = depth
    if isinstance(boundary, str):
        return np.pad(x, widths, boundary)
    return x if boundary is None else np.pad(x, widths, constant_values=boundary)


@st.composite
def arrays(draw, dtypes=DTYPES):
    """Arrays of few elements and any memory layout, of random bytes."""
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    steps = [draw(st.sampled_from([1, 1, 2, -1])) for _ in shape]
    whole = [size * abs(step) for size, step in zip(shape, steps, strict=True)]
    seed = draw(st.integers(0, 99))
    raw = np.random.default_rng(seed).integers(0, 2, (*whole, dtype.itemsize), np.uint8)
    x = raw.view(dtype)[..., 0] if dtype.itemsize > 1 else raw[..., 0].view(dtype)
    x = x[tuple(slice(None, None, step) for step in steps)]
    return np.transpose(x, draw(st.permutations(range(len(shape)))))


DEPTHS = st.tuples(st.integers(0, 12), st.integers(0, 12))


@settings(max_examples=150, deadline=None)
@given(st.data(), arrays(), DEPTHS, st.sampled_from([*MODES, 0, 1]))
def test_chunks_see_what_numpy_pads(data, x, depth, boundary):
    """Whoever looks: Python and machine code see the same, of the same memory layout as a view."""
    axis = data.draw(st.integers(0, x.ndim - 1))
    length = x.shape[axis]
    start = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(start + 1, length))
    expected = padded(x, depth, _fitting(boundary, x.dtype), axis)
    expected = np.moveaxis(expected, axis, 0)[start : stop + sum(depth)]
    marker = sc.halo(x, depth, axis=axis, boundary=_fitting(boundary, x.dtype))
    (part,) = bind([marker], Setting(0, shared=False)).bound
    assert part.length == length
    _equal(np.moveaxis(part.at(ChunkCall(start, stop)), axis, 0), expected)
    assert not part.at(ChunkCall(start, stop)).flags.writeable
    if isinstance(part, PaddedPart):
        seen, kept = _seen_by_machine_code(part, start, stop)
        _equal(np.moveaxis(seen, axis, 0), expected)
        assert kept


def _fitting(boundary, dtype):
    """Some number that goes into elements of that type."""
    if isinstance(boundary, str) or dtype.kind == "U":
        return boundary
    return np.array(boundary).astype(dtype)[()]


def _equal(one, other):
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    assert one.tobytes() == other.tobytes()


def _seen_by_machine_code(part, start, stop):
    padding.prepare()
    words, kept = padding.padding_words(part, [(start, stop)])
    view = part.view
    block, geometry = np.array(words), np.array([*view.shape, *view.strides])
    data, worker = view.ctypes.data, part.workers - 1
    place = padding.pad(data, block.ctypes.data, geometry.ctypes.data, start, stop, worker)
    return array_at(place, view), kept


@settings(max_examples=80, deadline=None)
@given(st.data(), arrays(["f8"]), DEPTHS, st.sampled_from(MODES))
def test_views_and_copies_are_of_one_type(data, x, depth, boundary):
    """To Numba, so that one version of a kernel serves all chunks of more than one element."""
    axis = data.draw(st.integers(0, x.ndim - 1))
    x = np.repeat(x, 40, axis)
    marker = sc.halo(x, depth, axis=axis, boundary=boundary)
    arguments = bind([marker], Setting(0, shared=False))
    size = data.draw(st.integers(2, 9))
    cut = [
        edges for edges in chunks(arguments.length, 1, "static", size) if edges[1] - edges[0] > 1
    ]
    inner = x.shape[axis] > size + sum(depth)
    types = {nb.typeof(sample[0]) for sample in arguments.samples(cut)}
    assert not inner or len(types) == 1


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 5),
    st.integers(1, 60),
    st.sampled_from(["static", "dynamic", "guided"]),
    DEPTHS,
    st.sampled_from([1, 1000, 100_000]),
)
def test_ends_are_cut_into_chunks_of_more_than_one(length, workers, size, schedule, depth, row):
    x = np.lib.stride_tricks.as_strided(np.zeros(1), (length, row), (0, 0))
    before = chunks(length, workers, schedule, size)
    (part,) = bind([sc.halo(x, depth, boundary="edge")], Setting(0, shared=False)).bound
    after = cut_ends(before, [part] if isinstance(part, PaddedPart) else [])
    assert after[0][0] == 0
    assert after[-1][1] == length
    assert all(one[1] == other[0] for one, other in zip(after, after[1:], strict=False))
    assert {edge for chunk in before for edge in chunk} <= {
        edge for chunk in after for edge in chunk
    }
    assert len(after) <= len(before) + 2
    ones = [chunk for chunk in before if chunk[1] - chunk[0] == 1]
    assert [chunk for chunk in after if chunk[1] - chunk[0] == 1] == ones


def test_little_is_copied_of_large_arrays():
    """Some rows at each end, or some KiB, whatever the size of the chunks."""
    for shape in ((4000, 4000), (4_000_000,), (1000, 40, 40)):
        x = np.zeros(shape)
        (part,) = bind([sc.halo(x, 1, boundary="wrap")], Setting(0, shared=False)).bound
        cut = cut_ends(chunks(shape[0], 2, "static", None), [part])
        assert len(cut) == 4
        copied = sum(part.copied(*chunk) for chunk in cut) * x.nbytes // shape[0]
        assert copied <= max(1 << 16, 10 * x.nbytes // shape[0])


@nb.njit
def weighted(out, x, depth):
    for i in range(out.shape[0]):
        total = 0.0
        for k in range(depth):
            for j in range(x.shape[1]):
                total += (k + 1) * x[i + k, j] * (j + 1)
        out[i] = total


def _windows(x, depth):
    """What `weighted` makes of an array that is padded."""
    out = np.zeros(len(x) - depth + 1)
    weighted(out, x, depth)
    return out


@pytest.mark.parametrize("boundary", [None, "wrap", -2.5])
@pytest.mark.parametrize("layout", ["C", "F", "T", "strided"])
def test_jitted_kernels_need_no_python(layout, boundary):
    """On arrays of any layout; and each run sees what the array holds then."""
    wide = np.random.default_rng(0).integers(0, 9, (90, 80)).astype(float)
    with (
        sc.SharedArray(wide, order="F" if layout == "F" else "C") as source,
        sc.SharedArray(np.zeros(100)) as out,
        sc.Pool(2, backend="threads") as pool,
    ):
        x = {"T": source.array.T, "strided": source.array[::2, ::-1]}.get(layout, source.array)
        length = len(padded(x, (3, 2), boundary)) - 5
        args = out[:length], sc.halo(x, (3, 2), boundary=boundary), 6
        step = sc.plan(weighted, *args, chunksize=20, pool=pool)
        assert step._plan.native is not None
        for _ in range(3):
            out.array[:] = -1
            step()
            np.testing.assert_array_equal(out[:length], _windows(padded(x, (3, 2), boundary), 6))
            source.array[:] += 1


def test_plans_travel_and_are_equal_once_they_are_used(arr):
    """A run leaves nothing in a bound argument that would make it another one."""
    (part,) = bind([sc.halo(arr, 2, boundary=1.5)], Setting(0, shared=False)).bound
    before = pickle.dumps(part)
    part.at(ChunkCall(0, 10))
    assert pickle.dumps(part) == before


def test_objects_are_padded_too():
    x = np.array([1, "two", None], object)
    (part,) = bind([sc.halo(x, 2, boundary="wrap")], Setting(0, shared=False)).bound
    assert part.at(ChunkCall(0, 3)).tolist() == ["two", None, 1, "two", None, 1, "two"]


def test_records_keep_their_attributes():
    def kernel(out, x):
        out[:] = x.a[:-2] + x.a[2:]

    record = np.zeros(4, [("a", "i8"), ("b", "f8")])
    record["a"] = range(4)
    with sc.SharedArray(np.zeros(4)) as out, sc.SharedArray(record) as x:
        view = x.array.view(np.recarray)
        sc.parallel_apply(kernel, out, sc.halo(view, 1, boundary="wrap"), backend="serial")
        np.testing.assert_array_equal(out.array, [4, 2, 4, 2])


@pytest.mark.parametrize("depth", [-1, (1, -2), (-1, 0)])
def test_a_depth_below_0_is_refused(arr, depth):
    with pytest.raises(ValueError, match=r"depth.*below 0"):
        sc.halo(arr, depth)


@pytest.mark.parametrize("depth", [1.0, "1", None, True, (1,), (1, 2, 3), (1, 2.0), [1, "x"]])
def test_a_depth_must_be_whole_numbers(arr, depth):
    with pytest.raises(TypeError, match=r"depth: expected a whole number, or"):
        sc.halo(arr, depth)


def test_an_unknown_boundary_is_refused(arr):
    with pytest.raises(ValueError, match=r"unknown boundary: 'mean'; known: 'edge'"):
        sc.halo(arr, 1, boundary="mean")
    for boundary in ([1], b"edge", np.pad, np.zeros(2)):
        with pytest.raises(TypeError, match=r"boundary.*edge.*a number or None"):
            sc.halo(arr, 1, boundary=boundary)


def test_a_number_that_does_not_fit_is_refused():
    for dtype, value in (("i4", 10**30), ("f8", np.bytes_("x"))):
        x = np.zeros(4, dtype)
        with pytest.raises((TypeError, ValueError, OverflowError)):
            np.pad(x, 1, constant_values=value)
        with pytest.raises(ValueError, match=r"argument 0.*boundary="):
            bind([sc.halo(x, 1, boundary=value)], Setting(0, shared=False))


def test_an_empty_axis_is_continued_by_a_number_alone():
    """As `numpy.pad` has it, which allows any depth otherwise."""
    empty = np.zeros((0, 3))
    for mode in MODES:
        with pytest.raises(ValueError, match=r"argument 0 \(shape \(0, 3\).*can't.*empty"):
            bind([sc.halo(empty, 1, boundary=mode)], Setting(0, shared=False))
    sc.parallel_apply(nothing, empty, sc.halo(np.zeros((0, 2)), 1, boundary=0), backend="serial")


def test_lengths_that_differ_by_another_number_say_by_how_much_they_should(arr):
    with (
        sc.SharedArray(np.zeros(12)) as out,
        pytest.raises(ValueError, match=r"argument 1 .*halo of 3 in all.*should have 15, got 10"),
    ):
        sc.parallel_apply(nothing, out, sc.halo(arr, (1, 2)), backend="serial")
    with pytest.raises(ValueError, match=r"at least 12, got 10"):
        sc.parallel_apply(nothing, sc.halo(arr, 6), backend="serial")
    with (
        sc.SharedArray(np.zeros(8)) as out,
        pytest.raises(ValueError, match=r"argument 0 has 8.*argument 1 has 10"),
    ):
        sc.parallel_apply(nothing, out, sc.halo(arr, 1, boundary="wrap"), backend="serial")


@pytest.mark.parametrize("boundary", [None, "wrap", 0])
def test_a_halo_is_not_written(arr, boundary):
    def python(out, x):
        x[0] = 1

    with sc.SharedArray(np.zeros(10 if boundary is not None else 8)) as out:
        with pytest.raises(KernelTypeError, match="does not compile"):
            halo = sc.halo(arr, 1, boundary=boundary)
            sc.parallel_apply(nb.njit(python), out, halo, backend="threads")
        with pytest.raises(ValueError, match="read-only"):
            sc.parallel_apply(python, out, sc.halo(arr, 1, boundary=boundary), backend="threads")


def test_a_marker_within_a_marker_is_refused(arr):
    for marker in (sc.split, sc.write, sc.shared):
        with pytest.raises(TypeError, match=r"argument 0.*marker within a marker.*another array"):
            sc.parallel_apply(nothing, marker(sc.halo(arr, 1)), backend="serial")


def test_a_range_has_no_halo(arr):
    with pytest.raises(TypeError, match=r"argument 0 .*splits its range alone"):
        sc.parallel_for(nothing, 0, 3, sc.halo(arr, 1), backend="serial")


def test_ufuncs_take_shifted_views_instead(any_pool, arr):
    with sc.SharedArray(np.zeros(8)) as out:
        with pytest.raises(
            KernelTypeError, match=r"argument 1 .*halo.*longer by 2.*sc.read\(x\[:-2"
        ):
            sc.parallel_apply(np.negative, out, sc.halo(arr, 1), pool=any_pool)
        for more in ({}, {"debug": True}, {"retries": 1}):
            left, right = sc.read(arr[:-2]), sc.read(arr[2:])
            sc.parallel_apply(np.add, out, left, right, chunksize=3, pool=any_pool, **more)
            np.testing.assert_array_equal(out.array, arr[:-2] + arr[2:])
            out.array[:] = 0


@nb.guvectorize(["void(float64[:], float64[:], float64[:])"], "(m),(n)->(n)")
def neighbours(x, like, out):
    for i in range(out.size):
        out[i] = x[i] + x[i + 2]


@pytest.mark.parametrize("boundary", [None, "reflect"])
@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_gufuncs_see_a_halo_along_an_axis_of_its_own(backend, boundary):
    x = np.arange(40.0).reshape(4, 10) ** 2
    expected = padded(x, (1, 1), boundary, 1)
    expected = expected[:, :-2] + expected[:, 2:]
    with sc.SharedArray(x) as source, sc.SharedArray(np.zeros(expected.shape)) as out:
        halo = sc.halo(source, 1, boundary=boundary)
        args = out, halo, sc.read(out)
        sc.parallel_apply(neighbours, *args, axis=1, chunksize=3, backend=backend)
        np.testing.assert_array_equal(out.array, expected)


def test_calls_that_differ_in_their_halo_alone_are_told_apart():
    """By depth, boundary and the sign of zero; and one of a kind needs one plan."""

    with (
        sc.SharedArray(np.arange(1.0, 5.0)) as x,
        sc.SharedArray(np.zeros(4)) as out,
        sc.Pool(1, backend="serial") as pool,
    ):
        for _ in range(2):
            for depth in ((1, 0), (0, 1), (2, 0)):
                for boundary in (*MODES, 0, 0.0, -0.0, float("nan"), np.float32(7), False):
                    halo = sc.halo(x, depth, boundary=boundary)
                    sc.parallel_apply(first_and_last, out, halo, pool=pool)
                    whole = padded(x.array, depth, boundary)
                    margin = sum(depth)
                    _equal(out.array, np.copysign(1, whole[:4]) * 8 + whole[margin:])
        assert len(pool.plans._entries) == 30


def first_and_last(out, x):
    margin = x.size - out.size
    out[:] = np.copysign(1, x[: out.size]) * 8 + x[margin:]


@pytest.mark.long
def test_arrays_of_other_shapes_are_padded_for_themselves(any_pool):
    """Machine code has memory for copies of one shape: no plan of another one may use it."""
    for shape in ((40, 3), (40, 300), (9, 3), (40, 3)):
        x = np.random.default_rng(0).random(shape)
        with sc.SharedArray(x) as source, sc.SharedArray(np.zeros(shape[0])) as out:
            for chunksize in (2, 7, 40):
                halo = sc.halo(source, (1, 2), boundary="reflect")
                sc.parallel_apply(weighted, out, halo, 4, chunksize=chunksize, pool=any_pool)
                expected = _windows(padded(x, (1, 2), "reflect"), 4)
                np.testing.assert_array_equal(out.array, expected)
                out.array[:] = 0


def test_one_plan_serves_views_that_lie_elsewhere():
    """Without a boundary a halo is a view, as any other."""
    with (
        sc.SharedArray(np.random.default_rng(0).random((60, 5))) as x,
        sc.SharedArray(np.zeros(60)) as out,
        sc.Pool(2, backend="threads") as pool,
    ):
        for first, last in ((0, 60), (10, 40), (3, 9), (20, 60)):
            inner = out[first : last - 3]
            sc.parallel_apply(weighted, inner, sc.halo(x[first:last], (1, 2)), 4, pool=pool)
            np.testing.assert_array_equal(inner, _windows(x[first:last], 4))
        assert len(pool.plans._forms) == 1

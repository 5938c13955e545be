"""Arrays that are cut along two axes: what blocks see, and what is refused."""

from __future__ import annotations

import pickle

import numba as nb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from told_arrays import array_at

import shmcompute as sc
from shmcompute.chunking import Block, ChunkCall, PaddedBlock, Setting, bind, cut_ends_of_blocks
from shmcompute.chunking.grid_schedule import Cutting
from shmcompute.kernels import padding_blocks

MODES = ["edge", "reflect", "symmetric", "wrap"]
RECORD = np.dtype([("a", "i2"), ("b", "f8"), ("c", "S3")])
DTYPES = ["i1", ">i4", "f8", "c16", "S5", RECORD]
ALONG_TWO = Setting((0, 1), shared=False)


def nothing(*args):
    pass


@st.composite
def arrays(draw):
    """Arrays of few elements and any memory layout, and which of their axes are the call's."""
    shape = draw(st.lists(st.integers(1, 7), min_size=2, max_size=4))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    steps = [draw(st.sampled_from([1, 1, 2, -1])) for _ in shape]
    whole = [size * abs(step) for size, step in zip(shape, steps, strict=True)]
    raw = np.random.default_rng(draw(st.integers(0, 99))).integers(
        0, 2, (*whole, dtype.itemsize), np.uint8
    )
    x = raw.view(dtype)[..., 0] if dtype.itemsize > 1 else raw[..., 0].view(dtype)
    x = np.transpose(
        x[tuple(slice(None, None, step) for step in steps)],
        draw(st.permutations(range(len(shape)))),
    )
    axes = draw(st.permutations(range(x.ndim)))[:2]
    missing = draw(st.sampled_from([None, None, 0, 1]))
    return x, tuple(None if along == missing else axis for along, axis in enumerate(axes))


@st.composite
def blocks(draw, x, axes):
    """Somewhere in the array: start and stop."""
    pairs = []
    for axis in axes:
        length = 5 if axis is None else x.shape[axis]
        start = draw(st.integers(0, length - 1))
        pairs.append((start, draw(st.integers(start + 1, length))))
    return tuple(zip(*pairs, strict=True))


def depth_along(depth, axes):
    """(before, after) along each of the call's axes."""
    each = depth if isinstance(depth, tuple) else (depth, depth)
    pairs = [one if isinstance(one, tuple) else (one, one) for one in each]
    return [(0, 0) if axis is None else pair for axis, pair in zip(axes, pairs, strict=True)]


def padded(x, axes, depth, boundary):
    """What `numpy.pad` makes of it."""
    widths = [(0, 0)] * x.ndim
    for axis, pair in zip(axes, depth_along(depth, axes), strict=True):
        if axis is not None:
            widths[axis] = pair
    if isinstance(boundary, str):
        return np.pad(x, widths, boundary)
    return x if boundary is None else np.pad(x, widths, constant_values=boundary)


def window(x, axes, start, stop, margins=((0, 0), (0, 0))):
    where = [slice(None)] * x.ndim
    for axis, first, last, margin in zip(axes, start, stop, margins, strict=True):
        if axis is not None:
            where[axis] = slice(first, last + sum(margin))
    return x[tuple(where)]


def _equal(one, other):
    assert one.shape == other.shape
    assert one.dtype == other.dtype
    assert one.tobytes() == other.tobytes()


ONE = st.integers(0, 9)
DEPTHS = ONE | st.tuples(ONE | st.tuples(ONE, ONE), ONE | st.tuples(ONE, ONE))


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(st.data(), arrays(), DEPTHS, st.sampled_from([*MODES, 1]))
def test_blocks_see_what_numpy_pads(data, given, depth, boundary):
    """Whoever looks: Python and machine code see the same."""
    x, axes = given
    if not isinstance(boundary, str):
        boundary = np.array(boundary).astype(x.dtype)[()]
    if None in axes and isinstance(depth, tuple):
        depth = tuple(0 if axis is None else one for axis, one in zip(axes, depth, strict=True))
    start, stop = data.draw(blocks(x, axes))
    margins = depth_along(depth, axes)
    expected = window(padded(x, axes, depth, boundary), axes, start, stop, margins)
    marker = sc.halo(x, depth, axis=axes, boundary=boundary)
    other = np.zeros(tuple(5 if axis is None else x.shape[axis] for axis in axes))
    block, _ = bind([marker, sc.read(other)], ALONG_TWO).bound
    seen = block.at(ChunkCall(start, stop))
    _equal(seen, expected)
    assert not seen.flags.writeable
    if isinstance(block, PaddedBlock):
        found, kept = _seen_by_machine_code(block, start, stop)
        _equal(found, expected)
        assert kept


def _seen_by_machine_code(block, start, stop, grid=None):
    padding_blocks.prepare()
    words, kept = padding_blocks.padding_words(block, grid or [(start, stop)])
    view = block.view
    place, geometry = np.array(words), np.array([*view.shape, *view.strides])
    edges = [edge for pair in zip(start, stop, strict=True) for edge in pair]
    told = padding_blocks.pad_block(
        view.ctypes.data, place.ctypes.data, geometry.ctypes.data, *edges, block.workers - 1
    )
    return array_at(told, view), kept


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(MODES), st.sampled_from("CF"), st.integers(2, 9))
def test_views_and_copies_are_of_one_type(data, boundary, order, size):
    """To Numba, so that one version of a kernel serves all blocks of more than one row."""
    x = np.zeros(data.draw(st.sampled_from([(90, 80), (10, 90), (90, 10)])), order=order)
    depth = data.draw(st.tuples(ONE, ONE))
    arguments = bind([sc.halo(x, depth, boundary=boundary)], ALONG_TWO)
    grid = Cutting(2, 100).cut(x.shape, "static", (size, size))
    inner = [b for b in grid if b[1][0] - b[0][0] > 1 and b[1][1] - b[0][1] > 1]
    types = {nb.typeof(sample[0]) for sample in arguments.samples(inner)}
    narrow = all(n > size + 2 * d for n, d in zip(x.shape, depth, strict=True))
    assert not narrow or len(types) == 1


@pytest.mark.parametrize("shape", [(5, 13), (13, 5), (3, 3), (5, 1), (1, 5), (2, 9)])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("depth", [(2, 0), (0, 2), (2, 2)])
def test_what_machine_code_pads_is_of_the_type_that_python_pads(shape, order, depth):
    """Where copies are contiguous, both are: an axis may be shorter than the depth."""
    x = np.arange(shape[0] * shape[1] * 1.0).reshape(shape, order=order)
    (block,) = bind([sc.halo(x, depth, boundary="wrap")], ALONG_TWO).bound
    for grid in (Cutting(2, 100).cut(shape, how, None) for how in ("static", "guided")):
        for start, stop in grid:
            seen = block.at(ChunkCall(start, stop))
            found, kept = _seen_by_machine_code(block, start, stop, grid)
            assert nb.typeof(seen) == nb.typeof(found).copy(readonly=True)
            _equal(found, seen)
            assert kept


@settings(max_examples=60, deadline=None)
@given(st.data(), arrays())
def test_a_few_samples_have_all_types(data, given):
    """Of the blocks of a grid, however many, as Numba sees them."""
    x, axes = given
    boundary = data.draw(st.sampled_from([None, "wrap"]))
    depth = 0 if boundary is None else data.draw(st.integers(0, 2))
    other = np.zeros(tuple(5 if axis is None else x.shape[axis] for axis in axes))
    if x.dtype.hasobject or x.dtype.kind not in "ifc" or not x.dtype.isnative:
        x = np.zeros_like(x, "f8")
    arguments = bind([sc.halo(x, depth, axis=axes, boundary=boundary), sc.read(other)], ALONG_TWO)
    grid = Cutting(2, 100).cut(arguments.lengths, "static", data.draw(st.integers(1, 4)))
    padded = [one for one in arguments.bound if isinstance(one, PaddedBlock)]
    grid = cut_ends_of_blocks(grid, padded) if padded else grid
    for few in (grid, list(grid)):
        found = {tuple(map(nb.typeof, sample)) for sample in arguments.samples(few)}
        every = {tuple(map(nb.typeof, arguments.sample(*block))) for block in grid}
        assert found == every


def test_ends_are_cut_narrow():
    x = np.zeros((400, 300))
    (block,) = bind([sc.halo(x, ((1, 3), 0), boundary="edge")], ALONG_TWO).bound
    grid = cut_ends_of_blocks(Cutting(2, 100).cut(x.shape, "static", 100), [block])
    heights = [stop - start for start, stop in grid.rows]
    assert heights == [2, 98, 100, 100, 97, 3]
    assert len(grid.columns) == 3


def test_without_a_boundary_an_array_is_longer():
    x, out = np.arange(48.0).reshape(8, 6), np.zeros((6, 3))
    _, block = bind([out, sc.halo(x, (1, (0, 3)))], ALONG_TWO).bound
    assert isinstance(block, Block)
    np.testing.assert_array_equal(block.at(ChunkCall((2, 1), (4, 2))), x[2:6, 1:5])
    with pytest.raises(ValueError, match=r"first axis: .*argument 1 is for 6 .*halo of 2 in all"):
        bind([np.zeros((5, 3)), sc.halo(x, (1, (0, 3)))], ALONG_TWO)


def test_what_is_bound_travels():
    x = np.arange(12.0).reshape(3, 4)
    arguments = bind([x, sc.halo(x.copy(), 1, boundary="wrap")], ALONG_TWO)
    again = pickle.loads(pickle.dumps(arguments))
    pairs = zip(arguments.sample((0, 1), (2, 3)), again.sample((0, 1), (2, 3)), strict=True)
    for one, other in pairs:
        _equal(one, other)


@pytest.mark.parametrize(
    ("args", "error", "told"),
    [
        ([np.zeros(4)], ValueError, r"axis 1 is out of range for argument 0 .*\(0, None\)"),
        ([sc.split(np.zeros((4, 4)), axis=0)], TypeError, "argument 0: its axis is 0, but .* two"),
        ([sc.read(np.zeros((4, 4)), axis=(0,))], TypeError, "argument 0: its axis is"),
        ([sc.read(np.zeros((4, 4)), axis=(0, "1"))], TypeError, "whole number or None"),
        ([sc.read(np.zeros((4, 4)), axis=(0, True))], TypeError, "whole number or None"),
        ([sc.read(np.zeros((4, 4)), axis=(0, 0))], ValueError, "names axis 0 twice"),
        ([sc.read(np.zeros((4, 4)), axis=(1, -1))], ValueError, "names axis 1 twice"),
        ([sc.read(np.zeros((4, 4)), axis=(None, None))], ValueError, r"sc\.whole\(x\)"),
        ([sc.split(np.zeros((4, 4)), axis=(0, None))], ValueError, "second axis.*per_chunk"),
        ([sc.write(np.zeros(4), axis=(None, 0))], ValueError, "first axis.*same"),
        ([sc.read(np.zeros(4), axis=(0, None))], ValueError, "nothing to split .*second axis"),
        ([sc.whole(np.zeros((4, 4)))], ValueError, "nothing to split .*first axis"),
        ([np.zeros((4, 4)), np.zeros((4, 5))], ValueError, "second axis: .*is for 4 .*is for 5"),
        ([sc.halo(np.zeros((4, 4)), 9)], ValueError, "first axis: argument 0 is for -14"),
        (
            [np.zeros((4, 4)), sc.halo(np.zeros(4), (1, 1), axis=(0, None), boundary="wrap")],
            ValueError,
            "argument 1: halo: depth .*second axis .*must be 0",
        ),
        ([sc.halo(np.zeros((4, 0)), 1, boundary="edge")], ValueError, "axis 1 by 1 and 1"),
        (
            [np.lib.stride_tricks.as_strided(np.zeros(9), (4, 4), (8, 8), writeable=True)],
            ValueError,
            "repeats its memory along axis 0",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(args, error, told):
    with pytest.raises(error, match=told):
        bind(args, ALONG_TWO)


@pytest.mark.parametrize(
    ("axis", "error"),
    [((0,), ValueError), ((0, 1, 2), ValueError), ((0, None), TypeError), ((0, 1.0), TypeError)],
)
def test_a_call_is_along_one_axis_or_two(axis, error):
    with pytest.raises(error, match="axis: expected a whole number, or a tuple of two"):
        bind([np.zeros((4, 4))], Setting(axis, shared=False))


def test_along_one_axis_pairs_are_refused():
    x, setting = np.zeros((4, 4)), Setting(0, shared=False)
    with pytest.raises(TypeError, match=r"axis: .*got \(0, 1\) .*a call along two"):
        bind([sc.read(x, axis=(0, 1))], setting)
    with pytest.raises(TypeError, match=r"halo: depth: .*one axis, got \(\(1, 2\), 0\)"):
        bind([sc.halo(x, ((1, 2), 0))], setting)
    with pytest.raises(TypeError, match="chunksize: .*a call along two axes"):
        sc.parallel_apply(nothing, x, chunksize=(2, 2), backend="serial")


@pytest.mark.parametrize(
    "depth", ["1", 1.0, (1,), (1, 2, 3), ((1, 2, 3), 1), (((1, 1), 1), 1), None]
)
def test_depths_that_are_none_are_refused(depth):
    with pytest.raises(TypeError, match="halo: depth: expected a whole number"):
        sc.halo(np.zeros((4, 4)), depth)


VIEWS = st.tuples(st.integers(0, 5), st.integers(0, 5), st.sampled_from([(8, 1), (1, 8), (16, 2)]))


def _fill(out, seen):
    out[...] = seen[0, 0]


@settings(max_examples=200, deadline=None)
@given(VIEWS, VIEWS, st.integers(1, 3), st.integers(1, 3), st.sampled_from([0, 1, (0, 1), (2, 0)]))
def test_a_block_that_sees_what_another_writes_is_refused(first, second, rows, columns, depth):
    """And none that sees but its own, or what nobody writes."""
    memory = np.zeros(400)
    margins = [sum(pair) for pair in depth_along(depth, (0, 1))]
    out, seen = (
        np.lib.stride_tricks.as_strided(
            memory[8 * row + column :], shape, [8 * step for step in steps]
        )
        for (row, column, steps), shape in (
            (first, (rows, columns)),
            (second, (rows + margins[0], columns + margins[1])),
        )
    )
    cells = [(i, j) for i in range(rows) for j in range(columns)]
    others = any(
        p != q
        and np.shares_memory(
            out[p[0], p[1], None], seen[q[0] : q[0] + margins[0] + 1, q[1] : q[1] + margins[1] + 1]
        )
        for p in cells
        for q in cells
    )
    try:
        sc.parallel_apply(
            _fill, out, sc.halo(seen, depth), axis=(0, 1), chunksize=1, backend="serial"
        )
    except ValueError as error:
        assert "argument 0" in str(error)
        assert others or first[2] != second[2]
    else:
        assert not others


def test_rows_of_what_is_written_are_not_read():
    """A matrix product in place would read what other blocks write."""
    x = np.zeros((6, 6))
    with pytest.raises(ValueError, match=r"argument 0 .*argument 1 .*overlap in memory"):
        sc.parallel_apply(
            nothing, x, sc.read(x, axis=(0, None)), axis=(0, 1), chunksize=2, backend="serial"
        )
    sc.parallel_apply(nothing, x, sc.read(x), axis=(0, 1), chunksize=2, backend="serial")
    with pytest.raises(ValueError, match=r"overlap in memory"):
        transposed = sc.read(x, axis=(1, 0))
        sc.parallel_apply(nothing, x, transposed, axis=(0, 1), chunksize=2, backend="serial")


@pytest.mark.parametrize("boundary", ["wrap", 0])
def test_what_is_written_is_seen_in_no_padded_halo(boundary):
    """It shows what other blocks write, also where all that is within is their own."""
    x = np.zeros((8, 8))
    with pytest.raises(ValueError, match=r"argument 0 .*argument 1 .*overlap in memory"):
        halo = sc.halo(x, 1, boundary=boundary)
        sc.parallel_apply(nothing, x, halo, axis=(0, 1), backend="serial")
    chain = [(nothing, x), (nothing, np.zeros((8, 8)), sc.halo(x, 1, boundary=boundary))]
    with pytest.raises(ValueError, match="link 0 of the chain writes .* sees in other parts"):
        sc.parallel_apply(chain, axis=(0, 1), backend="serial")

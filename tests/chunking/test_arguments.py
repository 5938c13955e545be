"""Arguments: what is split, what is passed, what is refused before anything runs."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import shmcompute as sc
from shmcompute.chunking import ChunkCall, Setting, bind


@pytest.fixture
def arr():
    with sc.SharedArray(np.arange(20.0)) as arr:
        yield arr


@pytest.fixture
def square():
    with sc.SharedArray(np.zeros((4, 6))) as arr:
        yield arr


def test_unlike_lengths_are_named_with_shapes(arr, square):
    with pytest.raises(ValueError, match=r"20 \(shape \(20,\), axis 0\).*4 \(shape \(4, 6\)"):
        bind([arr, square], Setting(0, shared=True))
    assert (
        bind([sc.split(arr.array[:6]), sc.split(square, axis=1)], Setting(0, shared=True)).length
        == 6
    )


@pytest.mark.parametrize("axis", [2, -3, 100])
def test_an_axis_out_of_range_names_the_shape(square, axis):
    with pytest.raises(ValueError, match=rf"axis {axis} is out of range.*\(4, 6\)"):
        bind([square], Setting(axis, shared=True))


@pytest.mark.parametrize("axis", [0.5, "0", None, True])
def test_an_axis_must_be_a_whole_number(square, axis):
    with pytest.raises(TypeError, match="axis"):
        bind([square], Setting(axis, shared=True))


@pytest.mark.parametrize("args", [[], [1, "x"], [sc.whole(np.zeros(3))], [sc.offset]])
def test_nothing_to_split_is_a_value_error(args):
    with pytest.raises(ValueError, match="nothing to split"):
        bind(args, Setting(0, shared=True))


def test_a_scalar_array_cannot_be_split():
    with sc.SharedArray(1.0) as scalar, pytest.raises(ValueError, match="out of range"):
        bind([scalar], Setting(0, shared=True))


def test_a_plain_array_is_told_to_be_wrapped(arr):
    with pytest.raises(TypeError, match=r"wrap it.*SharedArray"):
        bind([np.zeros(20)], Setting(0, shared=True))
    with pytest.raises(TypeError, match="wrap it"):
        bind([arr, sc.read(np.zeros(20))], Setting(0, shared=True))
    assert bind([np.zeros(20)], Setting(0, shared=False)).length == 20


def test_markers_take_arrays_only(arr):
    for marker in (sc.split, sc.read, sc.whole):
        with pytest.raises(TypeError, match="expected a SharedArray or an ndarray"):
            bind([arr, marker([1, 2, 3])], Setting(0, shared=True))


def test_overlapping_targets_are_refused(arr):
    with pytest.raises(ValueError, match="overlap"):
        bind([arr[:10], arr[5:15]], Setting(0, shared=True))
    with pytest.raises(ValueError, match="overlap"):
        bind([arr.array, arr.array[::-1]], Setting(0, shared=True))
    other = sc.SharedArray.attach(arr.name) if arr.storage == "shm" else arr
    with pytest.raises(ValueError, match="overlap"):
        bind([arr[:10], other[5:15]], Setting(0, shared=True))


def test_targets_that_are_the_same_or_interleaved_are_allowed(arr):
    for args in (
        [arr, arr],
        [arr.array[::2], arr.array[1::2]],
        [arr[:10], arr[10:]],
        [arr, sc.read(arr)],
        [arr[:10], sc.read(arr[10:])],
        [arr[:1], sc.whole(arr)],  # a single chunk
    ):
        bind(args, Setting(0, shared=True))


def test_what_sees_other_chunks_of_a_target_is_refused(arr, square):
    """NumPy copies what an operand shares with the result; chunks would see some of it written."""
    numbers = square.array
    for args in (
        [arr, sc.whole(arr)],
        [arr, sc.whole(arr[3:5])],
        [arr[1:], sc.read(arr[:-1])],
        [arr[:-1], sc.read(arr[1:])],
        [arr[:10], sc.read(arr[5:15])],
        [arr, sc.read(arr[::-1])],
        [arr[:10], sc.read(arr[:20:2])],
        [arr[:10], sc.read(arr.array.view("u1")[12:92:8])],
        [arr[1:], np.zeros(19), sc.read(arr[:-1])],
        [numbers[1:], sc.read(numbers[:-1, ::2])],
        [numbers[:4, :4], sc.read(numbers[:4, :4], axis=1)],
        [arr[1:5], sc.read(np.broadcast_to(arr[1:2], 4))],
    ):
        for order in (args, args[::-1]):
            with pytest.raises(ValueError, match="sees what other chunks write"):
                bind(order, Setting(0, shared=False))


def test_what_a_chunk_alone_sees_of_its_part_is_allowed(square):
    """Rows of which some columns are read and others written, fields, parts of numbers."""
    numbers = square.array
    with sc.SharedArray(np.zeros(5, "i4, f8")) as records, sc.SharedArray(np.ones(5, complex)) as z:
        for args in (
            [numbers[:, 0], sc.read(numbers)],
            [numbers[:, 1:], sc.read(numbers[:, :-1])],
            [numbers, sc.read(numbers[:, ::-1])],
            [numbers, sc.read(numbers.view("i8"))],
            [records.array["f0"], sc.read(records)],
            [records, sc.read(records.array["f1"])],
            [z, sc.read(z.array.imag)],
        ):
            bind(args, Setting(0, shared=True))


def test_a_file_that_is_mapped_twice_is_one_memory(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(20))
    with sc.SharedArray.open(path) as arr, sc.SharedArray.open(path, "r") as same:
        for seen in (sc.whole(same), sc.read(same.array[::-1])):
            with pytest.raises(ValueError, match="sees what other chunks write"):
                bind([arr, seen], Setting(0, shared=True))
        bind([arr, sc.read(same)], Setting(0, shared=True))


def test_a_target_that_repeats_its_memory_is_refused(arr):
    windows = np.lib.stride_tricks.sliding_window_view(arr.array, 3, writeable=True)
    with pytest.raises(ValueError, match="repeats its memory"):
        bind([windows], Setting(0, shared=True))
    same = np.lib.stride_tricks.as_strided(arr.array, (5, 4), (0, 8))
    with pytest.raises(ValueError, match="repeats its memory"):
        bind([same], Setting(0, shared=True))
    bind([np.lib.stride_tricks.as_strided(arr.array, (5, 4), (32, 8))], Setting(0, shared=True))
    with pytest.raises(ValueError, match="read-only"):
        bind([np.broadcast_to(arr.array, (3, 20))], Setting(0, shared=True))


def test_any_ordinary_view_is_taken():
    """Slices and transposes in any number of dimensions never look like repeated memory."""
    with sc.SharedArray(np.zeros((3, 4, 5, 6))) as arr:
        for view in (
            arr.array,
            arr.array.T,
            arr.array[::2, ::-1, 1:4, ::3],
            arr.array.transpose(2, 0, 3, 1)[::-1],
            arr.array.reshape(12, 30)[:, ::7],
        ):
            for axis in range(view.ndim):
                bind([view], Setting(axis, shared=True))


def test_chunks_see_what_they_should(arr, square):
    arguments = bind(
        [sc.split(arr.array[:6]), sc.read(square, axis=1), sc.whole(arr[6:]), sc.offset, "word"],
        Setting(0, shared=True),
    )
    x, columns, table, start, word = arguments.at(ChunkCall(2, 5))
    np.testing.assert_array_equal(x, [2, 3, 4])
    assert columns.shape == (4, 3)
    assert (x.flags.writeable, columns.flags.writeable, table.flags.writeable) == (
        True,
        False,
        False,
    )
    assert (table.shape, start, word) == ((14,), 2, "word")
    assert type(start) is int
    assert np.shares_memory(x, arr.array)


def test_there_is_one_offset():
    for again in (copy.deepcopy(sc.offset), pickle.loads(pickle.dumps(sc.offset))):
        assert again is sc.offset


def test_samples_have_every_layout_that_chunks_have():
    """A chunk of one row, and one of all, may be contiguous where the others are not."""
    with sc.SharedArray(np.zeros((5, 4)), order="F") as arr:
        arguments = bind([arr], Setting(0, shared=True))
        shapes = [sample[0].shape for sample in arguments.samples([(0, 2), (2, 4), (4, 5)])]
        assert shapes == [(2, 4), (1, 4)]

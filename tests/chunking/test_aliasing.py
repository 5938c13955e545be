"""Arguments that share memory: what is accepted comes to what NumPy makes of it, in any chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shmcompute as sc

SIDE, PART = 8, 3
_CUT = st.tuples(st.integers(0, 2), st.sampled_from([1, 2, -1]))
_CUTS = st.tuples(_CUT, _CUT, st.booleans())


def _base():
    return np.arange(float(SIDE * SIDE)).reshape(SIDE, SIDE) ** 2


def _view(x, cuts):
    """PART x PART elements of x: shifted, strided, reversed, transposed."""
    *cut, transposed = cuts
    view = x[tuple(slice(start, start + PART * abs(step), abs(step)) for start, step in cut)]
    view = view[tuple(slice(None, None, 1 if step > 0 else -1) for _, step in cut)]
    return view.T if transposed else view


def _chunks_overlap(written, seen, axis):
    """By brute force: whether one index of the axis sees what another writes."""
    parts = [np.moveaxis(view, axis, 0) for view in (written, seen)]
    return any(
        i != j and np.shares_memory(mine, other)
        for i, mine in enumerate(parts[0])
        for j, other in enumerate(parts[1])
    )


def _subtract(out, x, y, size, axis):
    """Whether it is accepted."""
    try:
        sc.parallel_apply(
            np.subtract, out, sc.read(x), sc.read(y), axis=axis, chunksize=size, backend="serial"
        )
    except ValueError as error:
        assert "sees what other chunks write" in str(error)
        return False
    return True


@pytest.mark.long
@settings(max_examples=300, deadline=None)
@given(_CUTS, _CUTS, st.integers(1, PART), st.sampled_from([0, 1]))
def test_views_of_one_array(written, seen, size, axis):
    """Refused, or equal to NumPy's; and what no other chunk sees is not refused."""
    plain, x = _base(), _base()
    np.subtract(_view(plain, written), _view(plain, seen), out=_view(plain, written))
    out, other = _view(x, written), _view(x, seen)
    if _subtract(out, out, other, size, axis):
        np.testing.assert_array_equal(x, plain)
    else:
        assert _chunks_overlap(out, other, axis) or out.strides[axis] != other.strides[axis]
        np.testing.assert_array_equal(x, _base())


def _blur(out, x, width):
    out[:] = sum(x[k : len(x) - width + k] * (k + 1) for k in range(width + 1))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 2), st.integers(0, 2), st.data())
def test_a_halo_of_the_array_that_is_written(first, second, before, after, data):
    """Refused, or equal to what comes of a copy; and what no other chunk sees is not refused."""
    length, margin = data.draw(st.integers(1, 6)), before + after
    step = data.draw(st.sampled_from([1, 2]))
    plain, x = np.arange(60.0) ** 2, np.arange(60.0) ** 2
    written = slice(first, first + step * length, step)
    seen = slice(second, second + step * (length + margin), step)
    _blur(plain[written], plain[seen].copy(), margin)
    out, read = x[written], x[seen]
    others = any(
        i != j and np.shares_memory(out[i : i + 1], read[j : j + margin + 1])
        for i in range(length)
        for j in range(length)
    )
    try:
        halo = sc.halo(read, (before, after))
        sc.parallel_apply(_blur, out, halo, margin, chunksize=1, backend="serial")
    except ValueError as error:
        assert "argument 0" in str(error)
        assert "argument 1" in str(error)
        assert others
    else:
        assert not others
        np.testing.assert_array_equal(x, plain)


@pytest.mark.parametrize("written", [sc.split, sc.write, sc.shared])
@pytest.mark.parametrize("chunksize", [1, 100])
def test_what_is_written_is_seen_in_no_halo(written, chunksize):
    """Whatever the chunks, if there are several elements; by another mapping, too."""
    split = sc.read(np.zeros(8))
    with sc.SharedArray(np.zeros((10, 2)), storage="shm") as arr:
        with sc.SharedArray.attach(arr.name) as other:
            for x in (arr.array, other.array):
                whole, inner = x[:, 0], x[1:-1, 0]
                for seen in (sc.halo(whole, 1), sc.halo(inner, 1, boundary="wrap")):
                    for target in (arr.array[1:-1, 0], arr.array[:8, 0], arr.array[8:0:-1, 0]):
                        with pytest.raises(ValueError, match=_WAY_OUT):
                            sc.parallel_apply(
                                _nothing, written(target), seen, split,
                                chunksize=chunksize, backend="serial",
                            )  # fmt: skip
                column = sc.halo(x[:, 1], 1), written(arr.array[1:-1, 0])
                sc.parallel_apply(_nothing, *column, split, backend="serial")
        same = written(arr.array[:8]), sc.halo(arr.array[:8], 0, boundary="edge")
        if written is not sc.shared:  # it sees what it writes itself, as in read(a) with split(a)
            sc.parallel_apply(_nothing, *same, backend="serial")


_WAY_OUT = r"argument 0 .*argument 1 .*overlap in memory.*a second array .*parallel_iterate"


def _nothing(*args):
    pass


def test_in_a_range_arguments_are_numbered_as_the_caller_does():
    x = np.zeros(4)
    with pytest.raises(ValueError, match=r"argument 0 .*argument 1 .*overlap"):
        sc.parallel_for(_nothing, 0, 3, sc.shared(x), sc.whole(x[1:]), backend="serial")
    with (
        sc.SharedArray(x) as arr,
        pytest.raises(TypeError, match=r"argument 1 is a plain ndarray"),
    ):
        sc.parallel_for(_nothing, 0, 3, sc.whole(arr), sc.shared(x), backend="processes")

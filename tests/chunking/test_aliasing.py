"""Arguments that share memory: what is accepted comes to what NumPy makes of it, in any chunks."""

from __future__ import annotations

import numpy as np
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

"""Layouts and trailers: what goes in comes out, and damage is a typed error."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.lib.format import drop_metadata

from shmcompute.errors import SegmentFormatError
from shmcompute.storage import layout as layouts
from shmcompute.storage import npy_header
from shmcompute.storage.layout import Layout

layout = Layout.of

DTYPES = hnp.scalar_dtypes() | hnp.nested_dtypes(max_leaves=4) | hnp.unicode_string_dtypes()
SHAPES = hnp.array_shapes(min_dims=0, min_side=0, max_dims=6)


def _read(tail):
    record = tail[-layouts.RECORD.size :]
    length = layouts.header_length("x", record, len(tail))
    header = tail[len(tail) - layouts.RECORD.size - length : len(tail) - layouts.RECORD.size]
    return layouts.parse_trailer("x", header, record)


@pytest.mark.long
@given(SHAPES, DTYPES, st.sampled_from("CF"))
def test_a_trailer_tells_shape_dtype_and_order(shape, dtype, order):
    made = layout(shape, dtype, order)
    page = layouts.trailer(made)
    found = _read(b"\0" * layouts.padded(made.nbytes) + page)
    assert found == made
    assert found.dtype.itemsize == made.dtype.itemsize
    assert len(page) % 4096 == 0


@pytest.mark.parametrize("dtype", ["f8", "S5", "M8[ns]", [("x", "i4", (2,)), ("y", "U3")]])
def test_the_filters_of_warnings_are_left_alone(dtype, monkeypatch):
    """They are the whole program's, and other threads may be changing them."""
    monkeypatch.setattr("warnings.catch_warnings", None)
    made = layout((3,), np.dtype(dtype), "C")
    page = layouts.trailer(made)
    assert _read(b"\0" * layouts.padded(made.nbytes) + page) == made


@pytest.mark.parametrize("dtype", [[("λ", "f8")], [("a", "i1"), ("ü", "<c16", (2, 3))]])
def test_field_names_may_be_in_any_script(dtype):
    made = layout(3, dtype)
    assert _read(b"\0" * 4096 + layouts.trailer(made)) == made


ALIGNED = np.dtype([("a", "i1"), ("b", "f8")], align=True)
RECORD = np.dtype((np.record, [("x", "f4")]))
TOLD_APART = [
    ALIGNED,
    RECORD,
    np.dtype((np.record, ALIGNED)),
    np.dtype([("part", ALIGNED, (2, 3)), ("more", RECORD), ("λ", [("deep", ALIGNED)])]),
    np.dtype([("part", ALIGNED), ("n", "i8")], align=True),
    np.dtype([(("a title", "a"), "i1"), ("b", "f8")], align=True),
]


def _traits(dtype):
    """All that tells dtypes apart which NumPy calls equal."""
    parts = [part for part, *_ in (dtype.base.fields or {}).values()]
    return dtype.base.isalignedstruct, dtype.base.type, [*map(_traits, parts)]


@pytest.mark.parametrize("dtype", TOLD_APART)
def test_what_is_aligned_or_a_record_stays_so(dtype):
    made = layout(3, dtype)
    found = _read(b"\0" * layouts.padded(made.nbytes) + layouts.trailer(made))
    assert found.dtype == dtype
    assert _traits(found.dtype) == _traits(dtype)


@pytest.mark.parametrize("flags", [b"\1", b"\1\1\1", b"\3", b"\0\2"])
def test_traits_that_a_dtype_cannot_have_are_a_format_error(flags):
    header = npy_header.write((3,), np.dtype("i1, f8"), fortran=False)
    with pytest.raises(SegmentFormatError, match="align|traits"):
        layouts.parse_header("x", header + flags)


@pytest.mark.parametrize(
    "dtype",
    [
        np.dtype("f8", metadata={"unit": "m"}),
        np.dtype([("a", np.dtype("f8", metadata={"unit": "m"}), (2,))]),
    ],
)
def test_metadata_is_refused_and_the_way_out_taken(dtype):
    with pytest.raises(TypeError, match="drop_metadata"):
        layout(3, dtype)
    assert layout(3, drop_metadata(dtype)).dtype == dtype


def test_a_header_may_be_longer_than_a_page():
    made = layout(2, [(f"a field with a long name {i}", "f8") for i in range(400)])
    page = layouts.trailer(made)
    assert len(page) > 4096
    assert _read(b"\0" * layouts.padded(made.nbytes) + page) == made


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_trailer_is_a_format_error_or_harmless(data):
    """Any one change of the trailer is found, unless it left what is read as it was."""
    made = layout((3, 4), "f8")
    whole = bytearray(b"\0" * 4096 + layouts.trailer(made))
    at = data.draw(st.integers(4096, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(SegmentFormatError):
        assert _read(bytes(whole)) == made


@given(st.binary(max_size=9000))
def test_any_bytes_are_a_format_error(noise):
    for tail in (noise, noise + layouts.MAGIC):
        with pytest.raises(SegmentFormatError):
            _read(tail.rjust(layouts.RECORD.size, b"\0"))


def test_a_newer_version_says_so():
    tail = bytearray(layouts.trailer(layout(1, "f8")))
    tail[-12] = 9
    with pytest.raises(SegmentFormatError, match="version 9"):
        _read(b"\0" * 4096 + bytes(tail))


@pytest.mark.parametrize(
    "dtype", [object, [("a", object)], np.dtypes.StringDType(), np.dtype((object, (2,)))]
)
def test_a_dtype_that_owns_objects_is_a_type_error(dtype):
    with pytest.raises(TypeError, match="objects"):
        layout(3, dtype)


def test_a_dtype_that_a_header_cannot_describe_is_a_type_error():
    overlapping = np.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [0, 2]})
    with pytest.raises(TypeError, match="npy"):
        layout(3, overlapping)


@pytest.mark.parametrize("dtype", ["M8[0s]", [("a", "m8[0ns]", (2,))], [("a", [("b", "M8[0D]")])]])
def test_a_dtype_that_counts_in_steps_of_nothing_is_a_type_error(dtype):
    """NumPy ends the process when it compares such a one."""
    with pytest.raises(TypeError, match="steps of 0"):
        layout(3, dtype)


@pytest.mark.parametrize("shape", [(2**40, 2**40, 0), (2**63, 0)])
def test_a_shape_that_numpy_does_not_take_is_a_value_error_even_if_it_is_empty(shape):
    with pytest.raises(ValueError, match="overflows"):
        layout(shape, "f8")


def test_a_subarray_dtype_joins_the_shape_as_in_numpy():
    dtype = np.dtype(("f4", (2, 3)))
    made = layout((5,), dtype)
    plain = np.empty((5,), dtype)
    assert (made.shape, made.dtype) == (plain.shape, plain.dtype)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (-1, ValueError),
        ((2, -3), ValueError),
        ((2**62, 2**10), ValueError),
        (2**63, ValueError),
        (1.5, TypeError),
        ("3", TypeError),
        ((2, None), TypeError),
        ((1,) * 65, ValueError),
    ],
)
def test_a_bad_shape_is_named(shape, kind):
    with pytest.raises(kind, match="shape"):
        layout(shape, "f8")


def test_an_unknown_order_lists_the_known_ones():
    with pytest.raises(ValueError, match="'C', 'F'"):
        layout(3, "f8", "Z")


def test_a_layout_is_c_ordered_unless_it_says_otherwise():
    assert Layout((2, 3), np.dtype("f8")) == layout((2, 3), "f8", "C")
    assert Layout((2, 3), np.dtype("f8")) != layout((2, 3), "f8", "F")


@pytest.mark.parametrize("start", [b"", b"\x93NUMPY", b"\x93NUMPZ\x01\x00" + b"\xff" * 8])
def test_what_does_not_start_like_a_npy_has_no_length(start):
    with pytest.raises(ValueError, match="does not start like"):
        npy_header.length(start)


@pytest.mark.parametrize("dtype", ["f8", "M8[s]", [("a", "i4"), ("b", "S3", (2,))], "U7"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (7, 2**40), (1,) * 30, (10**20, 5)])
@pytest.mark.parametrize("fortran", [False, True])
@pytest.mark.parametrize("version", [1, 2])
def test_a_header_is_written_as_numpy_writes_it(shape, dtype, fortran, version):
    dtype, theirs = np.dtype(dtype), io.BytesIO()
    described = {"shape": shape, "fortran_order": fortran}
    described["descr"] = np.lib.format.dtype_to_descr(dtype)
    write = getattr(np.lib.format, f"write_array_header_{version}_0")
    write(theirs, described)
    ours = npy_header.write(shape, dtype, fortran=fortran, version=version)
    assert ours == theirs.getvalue()


def test_a_layout_is_in_c_order_unless_it_says_otherwise():
    assert not Layout((2, 3), np.dtype("f8")).fortran
    assert not Layout.of((2, 3), "f8").fortran


@pytest.mark.parametrize(
    "start", [b"", npy_header.npy.magic(1, 0), b"\x93NUMPX\x01\x00" + b"\x76\x00" * 2]
)
def test_what_does_not_start_like_a_header_is_told(start):
    """What is too short, and what is long enough and another file's."""
    with pytest.raises(ValueError, match="does not start like a .npy"):
        npy_header.length(start)

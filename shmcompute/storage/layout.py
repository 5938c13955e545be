"""What a segment holds: shape, dtype and order, and the trailer page that says so.

A segment is ``[data, from offset 0][padding to a page][trailer]``. The trailer's last bytes are a
fixed record (magic, version, length of the header, bytes of data, checksum); before it stands
NumPy's own ``.npy`` header, followed by what that does not tell of a dtype, if there is any. It is
read from the end, so the data needs no header in front and the standard library's recipe
``np.ndarray(shape, dtype, buffer=SharedMemory(name).buf)`` works.
"""

from __future__ import annotations

import math
import mmap
import operator
import struct
import sys
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from shmcompute import config
from shmcompute.errors import SegmentFormatError
from shmcompute.storage import npy_header as npy
from shmcompute.storage.dtype_traits import has_metadata, traits, with_traits

MAGIC = b"\x93SHMCOMP"
VERSION = 1
UNIT = 64  # bytes; headers are as long as a multiple of it, so at the start of a trailer 36 remain:
NOTE = 8  # bytes for the number of who holds the lock, then as many for the seal, see `shm`
RECORD = struct.Struct("<QIII8s")  # bytes of data, length of header, its crc32, version, magic


@dataclass(frozen=True)
class Layout:
    """Shape, dtype and order of an array; nothing is allocated."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool = False

    @classmethod
    def of(
        cls,
        shape: SupportsIndex | Iterable[SupportsIndex],
        dtype: DTypeLike,
        order: str = "C",
    ) -> Layout:
        """Check a shape, a dtype and an order, as `numpy.empty` takes them.

        Raises
        ------
        TypeError
            For a dtype that owns objects or that ``.npy`` can't describe, or a size that is no
            integer.
        ValueError
            For a negative or overflowing shape, or an order that is neither C nor F.
        """
        sizes = _sizes(shape)
        # Let NumPy settle subarray dtypes (their shape joins the array's) and "S" without a length.
        normalized = np.empty(0, dtype)
        full_shape = sizes + normalized.shape[1:]
        config.one_of("order", order, config.NEW_ORDERS)
        layout = cls(full_shape, _storable(normalized.dtype), order == "F" and len(full_shape) > 1)
        # NumPy multiplies the sizes that are not 0, and so must what it is to take.
        extent = math.prod(filter(None, full_shape)) * max(1, layout.dtype.itemsize)
        if extent + 2 * mmap.PAGESIZE > sys.maxsize:
            raise ValueError(
                f"shape {full_shape} of {layout.dtype} overflows: {extent} bytes, "
                f"at most {sys.maxsize} can be addressed"
            )
        return layout

    @property
    def nbytes(self) -> int:
        """Bytes of data."""
        return math.prod(self.shape) * self.dtype.itemsize

    def over(self, memory: np.ndarray[Any, np.dtype[np.uint8]]) -> np.ndarray[Any, Any]:
        """An array of this layout over these bytes."""
        return np.ndarray(self.shape, self.dtype, buffer=memory, order="F" if self.fortran else "C")


def _sizes(shape: SupportsIndex | Iterable[SupportsIndex]) -> tuple[int, ...]:
    parts = shape if isinstance(shape, Iterable) else (shape,)
    try:
        sizes = tuple(operator.index(part) for part in parts)
    except TypeError:
        raise TypeError(f"shape: expected whole numbers, got {shape!r}") from None
    if any(size < 0 for size in sizes):
        raise ValueError(f"shape: expected sizes of 0 or more, got {sizes}")
    if len(sizes) > 64:
        raise ValueError(f"shape: at most 64 dimensions, got {len(sizes)}")
    return sizes


def _storable(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """`dtype`, if its values are plain bytes that a header can describe."""
    if dtype.kind in "mMV":
        _check_steps(dtype)
    if has_metadata(dtype):  # not for the cache, to which dtypes that differ in it are equal
        raise TypeError(
            f"dtype {dtype} has metadata, which shared memory does not keep; pass "
            "dtype=numpy.lib.format.drop_metadata(x.dtype), and what it tells beside the array"
        )
    _check_storable(dtype)
    return dtype


def _check_steps(dtype: np.dtype[Any]) -> None:
    # To compare a dtype of steps of 0, "M8[0s]", with another divides by 0 and ends the process.
    if dtype.kind in "mM" and np.datetime_data(dtype)[1] < 1:
        raise TypeError(f"dtype {dtype} counts in steps of {np.datetime_data(dtype)[1]}")
    for part, *_ in (dtype.fields or {}).values():
        _check_steps(part.base)


@lru_cache(maxsize=256)
def _check_storable(dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise TypeError(
            f"dtype {dtype} holds Python objects, whose addresses mean nothing in another process; "
            "use a numeric, fixed-width string or structured dtype"
        )
    try:
        reread = npy.read(npy.write((), dtype, fortran=False))[1]
    except (TypeError, ValueError) as error:
        raise TypeError(f"dtype {dtype} can't be described in a .npy header: {error}") from error
    if reread != dtype:
        raise TypeError(f"dtype {dtype} does not survive a .npy header (it becomes {reread})")


def padded(data: int) -> int:
    """Bytes from the start of a segment to its trailer, for this many bytes of data."""
    return -(-data // mmap.PAGESIZE) * mmap.PAGESIZE


def trailer(layout: Layout) -> bytes:
    """The trailer: whole pages, the record at their very end."""
    header = npy.write(layout.shape, layout.dtype, fortran=layout.fortran, version=2)
    beside = traits(layout.dtype)
    header += beside.ljust(-(-len(beside) // UNIT) * UNIT, b"\0")
    record = RECORD.pack(layout.nbytes, len(header), zlib.crc32(header), VERSION, MAGIC)
    return (header + record).rjust(padded(len(header) + len(record)), b"\0")


def has_magic(tail: bytes) -> bool:
    """Whether a file that ends in these bytes says that it is a segment of ours."""
    return tail.endswith(MAGIC)


def seal_offset(tail: bytes) -> int:
    """Where in a segment with this record its seal stands, if it is one."""
    return padded(RECORD.unpack(tail)[0]) + NOTE


def header_length(name: str, tail: bytes, size: int) -> int:
    """Check the record at the end of a file of `size` bytes; how long its header is."""
    if not has_magic(tail) or len(tail) != RECORD.size:
        raise SegmentFormatError(
            f"{name!r} is not a shmcompute segment: it does not end in our magic. To map it as it "
            "is, use np.ndarray(shape, dtype, buffer=SharedMemory(name=...).buf)"
        )
    data, length, _, version, _ = RECORD.unpack(tail)
    if version != VERSION:
        raise SegmentFormatError(
            f"{name!r} has layout version {version}; this shmcompute reads version {VERSION}"
        )
    if length > npy.LONGEST or padded(data) + padded(length + RECORD.size) != size:
        raise SegmentFormatError(
            f"{name!r} is truncated or damaged: its record speaks of {data} bytes of data and a "
            f"header of {length}, the segment has {size}"
        )
    return int(length)


def parse_trailer(name: str, header: bytes, tail: bytes) -> Layout:
    """The layout that a header, the traits beside it and the record after them describe."""
    data, _, checksum, _, _ = RECORD.unpack(tail)
    if zlib.crc32(header) != checksum:
        raise SegmentFormatError(f"{name!r} is damaged: the checksum of its header does not match")
    layout = parse_header(name, header)
    if layout.nbytes != data:
        raise SegmentFormatError(
            f"{name!r} is damaged: {layout.shape} of {layout.dtype} is {layout.nbytes} bytes, "
            f"not {data}"
        )
    return layout


def parse_header(name: str, header: bytes) -> Layout:
    """The layout that a ``.npy`` header tells; it can be laid over that many bytes.

    Behind it may stand the traits of its dtype.
    """
    try:
        end = npy.length(header[: npy.START])
        shape, dtype, fortran = npy.read(header[:end])
        dtype = with_traits(dtype, header[end:])
        layout = Layout.of(shape, dtype, "F" if fortran else "C")
        if layout.nbytes != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"its dtype {dtype} has no length")
        return layout
    except Exception as error:  # NumPy raises many kinds on damaged text
        raise SegmentFormatError(f"{name!r} is damaged: {error}") from error

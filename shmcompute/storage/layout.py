"""What a segment holds: shape, dtype and order, and the trailer page that says so.

A segment is ``[data, from offset 0][padding to a page][trailer]``. The trailer's last bytes are a
fixed record (magic, version, length of the header, bytes of data, checksum); before it stands
NumPy's own ``.npy`` header. It is read from the end, so the data needs no header in front and the
standard library's recipe ``np.ndarray(shape, dtype, buffer=SharedMemory(name).buf)`` works.
"""

from __future__ import annotations

import io
import math
import mmap
import operator
import struct
import sys
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike

from shmcompute.errors import SegmentFormatError

MAGIC = b"\x93SHMCOMP"
VERSION = 1
RECORD = struct.Struct("<QIII8s")  # bytes of data, length of header, its crc32, version, magic
MAX_HEADER = 1 << 20  # a header longer than this is damage, not a dtype


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
        settled = np.empty(0, dtype)
        whole = sizes + settled.shape[1:]
        if order not in ("C", "F"):
            raise ValueError(f"unknown order: {order!r}; known: 'C', 'F'")
        made = cls(whole, _storable(settled.dtype), order == "F" and len(whole) > 1)
        if max(made.nbytes + 2 * mmap.PAGESIZE, *whole, 0) > sys.maxsize:
            raise ValueError(
                f"shape {whole} of {made.dtype} overflows: {made.nbytes} bytes, "
                f"at most {sys.maxsize} can be addressed"
            )
        return made

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
    if dtype.hasobject:
        raise TypeError(
            f"dtype {dtype} holds Python objects, whose addresses mean nothing in another process; "
            "use a numeric, fixed-width string or structured dtype"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # metadata on a dtype is not kept
            described = npy.descr_to_dtype(npy.dtype_to_descr(dtype))
    except (TypeError, ValueError) as error:
        raise TypeError(f"dtype {dtype} can't be described in a .npy header: {error}") from error
    if described != dtype:
        raise TypeError(f"dtype {dtype} does not survive a .npy header (it becomes {described})")
    return dtype


def sized(data: int) -> int:
    """Bytes from the start of a segment to its trailer, for this many bytes of data."""
    return -(-data // mmap.PAGESIZE) * mmap.PAGESIZE


def trailer(made: Layout) -> bytes:
    """The trailer: whole pages, the record at their very end."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # metadata on a dtype is not kept
        described: dict[str, Any] = {
            "shape": made.shape,
            "fortran_order": made.fortran,
            "descr": _ascii(npy.dtype_to_descr(made.dtype)),
        }
    npy.write_array_header_2_0(buffer, described)
    header = buffer.getvalue()
    record = RECORD.pack(made.nbytes, len(header), zlib.crc32(header), VERSION, MAGIC)
    return (header + record).rjust(sized(len(header) + len(record)), b"\0")


class _Ascii(str):
    """A field name whose repr is ASCII: NumPy writes headers of version 2 in Latin-1."""

    def __repr__(self) -> str:
        return ascii(str(self))


def _ascii(descr: Any) -> Any:
    if isinstance(descr, str):
        return _Ascii(descr)
    if isinstance(descr, (list, tuple)):
        return type(descr)(_ascii(part) for part in descr)
    return descr


def claims(tail: bytes) -> bool:
    """Whether a file that ends in these bytes says that it is a segment of ours."""
    return tail.endswith(MAGIC)


def header_length(name: str, tail: bytes, size: int) -> int:
    """Check the record at the end of a file of `size` bytes; how long its header is."""
    if not claims(tail) or len(tail) != RECORD.size:
        raise SegmentFormatError(
            f"{name!r} is not a shmcompute segment: it does not end in our magic. To map it as it "
            "is, use np.ndarray(shape, dtype, buffer=SharedMemory(name=...).buf)"
        )
    data, length, _, version, _ = RECORD.unpack(tail)
    if version != VERSION:
        raise SegmentFormatError(
            f"{name!r} has layout version {version}; this shmcompute reads version {VERSION}"
        )
    if length > MAX_HEADER or sized(data) + sized(length + RECORD.size) != size:
        raise SegmentFormatError(
            f"{name!r} is truncated or damaged: its record speaks of {data} bytes of data and a "
            f"header of {length}, the segment has {size}"
        )
    return int(length)


def described(name: str, header: bytes, tail: bytes) -> Layout:
    """The layout that a header and the record after it describe."""
    data, _, checksum, _, _ = RECORD.unpack(tail)
    if zlib.crc32(header) != checksum:
        raise SegmentFormatError(f"{name!r} is damaged: the checksum of its header does not match")
    try:
        buffer = io.BytesIO(header)
        if npy.read_magic(buffer) != (2, 0):
            raise ValueError("its header is not of version 2.0")
        shape, fortran, dtype = npy.read_array_header_2_0(buffer, max_header_size=MAX_HEADER)
        made = Layout(_sizes(shape), _storable(dtype), bool(fortran))
    except Exception as error:  # NumPy raises many kinds on damaged text
        raise SegmentFormatError(f"{name!r} is damaged: {error}") from error
    if made.nbytes != data:
        raise SegmentFormatError(
            f"{name!r} is damaged: {made.shape} of {made.dtype} is {made.nbytes} bytes, not {data}"
        )
    return made

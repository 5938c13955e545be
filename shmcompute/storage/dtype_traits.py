"""What a ``.npy`` header does not tell of a dtype: which structures are aligned, which are records.

Two dtypes that differ in these alone are equal to NumPy, and lie in memory alike. Yet to Numba an
aligned structure is of another type, and a record has its fields as attributes. So a segment's
trailer has them beside the header, as a byte for each structure, the outermost first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_ALIGNED, _RECORD = 1, 2


def traits(dtype: np.dtype[Any]) -> bytes:
    """The traits of a dtype; nothing if it has none, as almost all."""
    flags = bytes(_flags(dtype))
    return flags if any(flags) else b""


def with_traits(dtype: np.dtype[Any], flags: bytes) -> np.dtype[Any]:
    """A dtype that a header told, with the traits that stood beside it.

    Raises
    ------
    ValueError
        If they are not those of such a dtype.
    """
    if not flags:
        return dtype
    left = iter(flags)
    result = _rebuilt(dtype, left)
    if any(left) or result != dtype:
        raise ValueError(f"its traits {flags[:32]!r} are not those of {dtype}")
    return result


def has_metadata(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype, or a part of it, carries metadata."""
    parts = [dtype.base] if dtype.subdtype else [part for part, *_ in _fields(dtype)]
    return bool(dtype.metadata) or any(map(has_metadata, parts))


def _fields(dtype: np.dtype[Any]) -> list[Any]:
    """Type, offset and perhaps title of each field; nothing for what is no structure."""
    return [dtype.fields[name] for name in dtype.names or ()] if dtype.fields else []


def _flags(dtype: np.dtype[Any]) -> Iterator[int]:
    base = dtype.base
    if base.names is None:
        return
    yield _ALIGNED * base.isalignedstruct + _RECORD * issubclass(base.type, np.record)
    for part, *_ in _fields(base):
        yield from _flags(part)


def _rebuilt(dtype: np.dtype[Any], flags: Iterator[int]) -> np.dtype[Any]:
    base = dtype.base
    if base.names is None:
        return dtype
    flag, fields = next(flags, 0), _fields(base)
    described = {
        "names": list(base.names),
        "formats": [_rebuilt(part, flags) for part, *_ in fields],
        "offsets": [offset for _, offset, *_ in fields],
        "titles": [title[0] if title else None for _, _, *title in fields],
        "itemsize": base.itemsize,
    }
    structure = np.dtype(described, align=bool(flag & _ALIGNED))  # type: ignore[call-overload]  # a dict
    if flag & _RECORD:
        structure = np.dtype((np.record, structure))
    return np.dtype((structure, dtype.shape)) if dtype.shape else structure

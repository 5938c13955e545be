"""The header of a ``.npy``: shape, order and dtype as text, whoever may have written it.

NumPy's format, written and read here, for a header may come with a file from anywhere. NumPy reads
one with `ast.literal_eval`, which builds a syntax tree of whatever stands there: some kilobytes
of nested brackets or signs overflow the stack of a small thread, which ends the process. So the
text is looked at first, and is only parsed if it is made of literals that are nested a little.
"""

from __future__ import annotations

import ast
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.lib import format as npy

LONGEST = 1 << 20  # bytes of a header; more is damage, not a dtype
LEAST = len("{'descr':'','fortran_order':True,'shape':()}")
TRIES = 5  # of a parser that other threads may confuse
DEEPEST = 32  # brackets within brackets; a structure within another takes two
START = npy.MAGIC_LEN + 4  # bytes that tell how long a header is

SHORT = 60_000  # characters that fit into version 1.0, with what NumPy adds
GROWTH = 21  # digits that an axis may grow to in place: those of 8 * 2**64 - 1
_VERSION = npy.MAGIC_LEN - 2  # where it stands
_SIZES = {1: struct.Struct("<H"), 2: struct.Struct("<I"), 3: struct.Struct("<I")}
# No quote follows a string: what Python takes for a triple quote is none here.
_STRING = r"""u?(?:'[^'\\\n]*+(?:\\.[^'\\\n]*+)*+'|"[^"\\\n]*+(?:\\.[^"\\\n]*+)*+")(?!['"])"""
_STRINGS = re.compile(_STRING)
_OLD_NUMBER = re.compile(rf"({_STRING})|([0-9])L\b")  # as Python 2 wrote them
_SPACE = str.maketrans("", "", " \t\r\n\f")
_PLAIN = re.compile(r"[\[\](){},:0-9]++|True|False")
_BRACKET = re.compile(r"[\[\](){}]")
_ODD = re.compile(r"\\|(?<=['\",|<>=0-9])a[0-9]*(?=['\",])")  # escapes, and the old name of "S"
_CALLED = re.compile(r"[^\[({,:][\[({]")  # a bracket after a value: a call, an index


_filters = threading.RLock()  # held by who changes the filters of warnings here


def write(
    shape: tuple[int, ...], dtype: np.dtype[Any], *, fortran: bool, version: int = 1
) -> bytes:
    """A header that every reader of ``.npy`` takes, in ASCII, of this version if it fits."""
    descr = _ascii(npy.dtype_to_descr(dtype))
    described = {"shape": shape, "fortran_order": fortran, "descr": descr}
    if version == 1 and len(repr(described)) >= SHORT:
        version = 2
    text = "".join(f"'{key}': {value!r}, " for key, value in sorted(described.items()))
    return _padded("{" + text + "}", shape[-1 if fortran else 0] if shape else None, version)


def _padded(text: str, axis: int | None, version: int) -> bytes:
    """A header with this text, as NumPy writes it, whose own function imports as it writes.

    An array that is made when the interpreter goes, where nothing can be imported, has one, too.
    There is room for the `axis` to grow, and what comes next is aligned.
    """
    if axis is not None:
        text += " " * (GROWTH - len(repr(axis)))
    size = _SIZES[version]
    rest = -(npy.MAGIC_LEN + size.size + len(text) + 1) % npy.ARRAY_ALIGN or npy.ARRAY_ALIGN
    text += " " * rest + "\n"
    return npy.magic(version, 0) + size.pack(len(text)) + text.encode("ascii")


class _Ascii(str):
    """A field name whose repr is ASCII, whatever script it is in."""

    def __repr__(self) -> str:
        return ascii(str(self))


def _ascii(descr: Any) -> Any:
    if isinstance(descr, str):
        return _Ascii(descr)
    if isinstance(descr, (list, tuple)):
        return type(descr)(_ascii(part) for part in descr)
    return descr


def length(start: bytes) -> int:
    """How long the header is that starts with these `START` bytes; ValueError if it is none."""
    if len(start) < START or not start.startswith(npy.MAGIC_PREFIX):
        raise ValueError("it does not start like a .npy")
    size = _size(start)
    (claimed_length,) = size.unpack_from(start, npy.MAGIC_LEN)
    if claimed_length > LONGEST:
        raise ValueError(f"its header claims {claimed_length} bytes; at most {LONGEST} are read")
    if claimed_length < LEAST:
        raise ValueError(f"its header claims {claimed_length} bytes; the least takes {LEAST}")
    return npy.MAGIC_LEN + size.size + int(claimed_length)


def _size(header: bytes) -> struct.Struct:
    major, minor = header[_VERSION : _VERSION + 2]
    if major not in _SIZES or minor:
        raise ValueError(f"its header is of version {major}.{minor}; known: 1.0, 2.0, 3.0")
    return _SIZES[major]


def read(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, dtype and whether the order is Fortran's, as a whole header says.

    Raises
    ------
    Exception
        Of many kinds: NumPy's for a dtype that is none, ours and Python's for other text.
    """
    if length(header[:START]) != len(header):
        raise ValueError("its header is cut off")
    text = _text(header)
    if header[_VERSION] < 3:
        text = _OLD_NUMBER.sub(r"\1\2", text)
    _check(text)
    # Filters are the whole program's, and other threads may be changing them: leave them alone
    # where nothing is to be expected.
    with _unwarned() if _ODD.search(text) else nullcontext():
        shape, descr, fortran = _check_fields(_literal(text))
        return shape, npy.descr_to_dtype(descr), fortran


@contextmanager
def _unwarned() -> Iterator[None]:
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _after_fork() -> None:
    global _filters
    _filters = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def _literal(text: str) -> object:
    """What a text of literals stands for."""
    for _ in range(TRIES):
        with suppress(SystemError):  # CPython 3.11 counts the depth of all threads' trees together
            return ast.literal_eval(text)
    return ast.literal_eval(text)


def _check_fields(fields: object) -> tuple[tuple[int, ...], Any, bool]:
    if not isinstance(fields, dict) or fields.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header does not tell descr, fortran_order and shape, and no more")
    shape, descr, fortran = fields["shape"], fields["descr"], fields["fortran_order"]
    sizes = isinstance(shape, tuple) and all(type(size) is int for size in shape)
    if not sizes or not isinstance(fortran, bool):
        raise ValueError(f"its header tells shape={shape!r:.99}, fortran_order={fortran!r:.99}")
    return shape, descr, fortran


def _text(header: bytes) -> str:
    start = npy.MAGIC_LEN + _size(header).size
    return header[start:].decode("utf-8" if header[_VERSION] == 3 else "latin-1")


def _check(text: str) -> None:
    """ValueError unless the text is made of literals, nested a little."""
    bare = _STRINGS.sub("0", text).translate(_SPACE)
    if _PLAIN.sub("", bare) or _CALLED.search(bare):
        raise ValueError("its header holds more than plain literals")
    turns = (1 if bracket in "[({" else -1 for bracket in _BRACKET.findall(bare))
    if max(accumulate(turns), default=0) > DEEPEST:
        raise ValueError(f"its header is nested deeper than {DEEPEST} brackets")

"""What Python kernels return for their chunks, as bytes that any process can hand back.

Of these results nothing is known before there is one. A small one fits into the row that the chunk
writes; a larger one goes to a file of its own. Only numbers and arrays of them travel so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shmcompute.algorithms.combine import Partials
from shmcompute.errors import KernelTypeError
from shmcompute.kernels import name_of
from shmcompute.typing import Array

ROW = 1024  # bytes of a chunk's row
_WORD = 8
_KINDS = frozenset("biufcmM")


class Sending:
    """A kernel that writes what another one returns: its last two arguments are its own.

    These are the chunk's number, and the row that it writes.
    """

    def __init__(self, function: Callable[..., Any], folder: str) -> None:
        self.function = function
        self.folder = folder  # of files for what is too large
        self.__qualname__ = name_of(function)

    def __call__(self, *args: Any) -> None:
        *given, number, row = args
        packed = _pack(self.function(*given), self.__qualname__)
        if packed.size > row.size:
            packed.tofile(Path(self.folder, str(number)))
            packed = packed[:_WORD]  # its length says where it is
        row[: packed.size] = packed


def received(rows: Array, folder: str) -> Partials:
    """What the chunks of a call have sent.

    Raises
    ------
    TypeError
        If it is not of one type and shape.
    """
    return _together([_unpack(_bytes(row, Path(folder, str(i)))) for i, row in enumerate(rows)])


def together(results: Iterable[Any], name: str) -> Partials:
    """What a kernel of that name has returned for each chunk, as `Partials`.

    Raises
    ------
    TypeError, KernelTypeError
        If it is not of one type and shape, or no numbers.
    """
    return _together([(isinstance(one, tuple), _parts(one, name)) for one in results])


def _together(results: Sequence[tuple[bool, list[Array]]]) -> Partials:
    several = {(several, len(parts)) for several, parts in results}
    if len(several) > 1:
        kinds = sorted(f"tuples of {count}" if many else "no tuples" for many, count in several)
        raise TypeError(
            f"a kernel returned {' and '.join(kinds)}: chunks must return what is alike"
        )
    columns = zip(*(parts for _, parts in results), strict=True)
    return Partials(tuple(_column(list(parts)) for parts in columns), results[0][0])


def _column(parts: list[Array]) -> Array:
    kinds = {(part.dtype, part.shape) for part in parts}
    # Python's numbers mix as they do in its arithmetic: a sum of nothing is 0, not 0.0.
    weak = all(not shape and dtype in _PYTHONS for dtype, shape in kinds)
    if len(kinds) > 1 and not weak:
        listed = " and ".join(sorted(f"{dtype} of shape {shape}" for dtype, shape in kinds))
        raise TypeError(f"a kernel returned {listed}: chunks must return what is alike")
    return np.stack(parts)


_PYTHONS = frozenset(map(np.dtype, (int, float, complex)))


def _pack(result: Any, name: str) -> Array:
    """Words of a length, of whether it is a tuple and of how many parts; then each part."""
    arrays = _parts(result, name)
    packed = b"".join(map(_pack_part, arrays))
    head = _words(3 * _WORD + len(packed), isinstance(result, tuple), len(arrays))
    return np.frombuffer(head + packed, np.uint8)


def _parts(result: Any, name: str) -> list[Array]:
    """The parts of a result, or the one that it is, as arrays."""
    parts = result if isinstance(result, tuple) else (result,)
    arrays = [np.asarray(part) for part in parts]
    if not arrays or any(array.dtype.kind not in _KINDS for array in arrays):
        raise KernelTypeError(
            f"kernel {name} returned {_described(result)}: expected a number, a tuple of numbers, "
            "or an array of numbers, the result of its chunk"
        )
    return arrays


def _pack_part(array: Array) -> bytes:
    kind = array.dtype.str.encode().ljust(2 * _WORD)
    content: bytes = array.tobytes()
    packed: bytes = kind + _words(array.ndim, *array.shape) + content
    return packed


def _words(*numbers: int) -> bytes:
    words: bytes = np.array(numbers, np.int64).tobytes()
    return words


def _described(result: Any) -> str:
    if isinstance(result, np.ndarray):
        return f"an array of {result.dtype}"
    return "nothing" if result is None else type(result).__name__


def _bytes(row: Array, file: Path) -> bytes:
    size = int(row[:_WORD].view(np.int64)[0])
    return row[:size].tobytes() if size <= row.size else file.read_bytes()


def _unpack(packed: bytes) -> tuple[bool, list[Array]]:
    _, several, count = _numbers(packed, 0, 3)
    return bool(several), list(_unpack_parts(packed, count))


def _unpack_parts(packed: bytes, count: int) -> Iterator[Array]:
    at = 3 * _WORD
    for _ in range(count):
        dtype = np.dtype(packed[at : at + 2 * _WORD].decode().strip())
        (ndim,) = _numbers(packed, at + 2 * _WORD, 1)
        shape = _numbers(packed, at + 3 * _WORD, ndim)
        at += (3 + ndim) * _WORD
        size = int(np.prod(shape))
        yield np.frombuffer(packed, dtype, size, at).reshape(shape)
        at += size * dtype.itemsize


def _numbers(packed: bytes, at: int, count: int) -> tuple[int, ...]:
    return tuple(np.frombuffer(packed, np.int64, count, at).tolist())

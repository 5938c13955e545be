"""`Combine`: what chunks gave, made one by the caller's function, always in the same order.

Neighbours are combined first, then neighbours of these, and so on: a tree that depends on the
number of chunks alone. So no result depends on who was done first, and errors of floats grow with
the tree's height, as in NumPy's own pairwise sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from shmcompute.kernels import name_of
from shmcompute.typing import Array

_WEAK = {bool: "b", int: "iufc", float: "fc", complex: "c"}  # kinds that Python's numbers fit in


class Partials(NamedTuple):
    """The results of all chunks, in their order: of a tuple, a column for each of its parts."""

    columns: tuple[Array, ...]  # of the shape (chunks, *shape of one); () where nobody knows
    several: bool  # whether each chunk gave a tuple

    @property
    def empty(self) -> bool:
        """Whether there is none."""
        return not self.columns or not len(self.columns[0])

    def result(self, parts: Sequence[Any]) -> Any:
        """What the caller gets of these parts."""
        return tuple(parts) if self.several else parts[0]

    def parts(self, value: Any, what: str) -> list[Any]:
        """The parts of a value that is to be like those of a chunk, as NumPy's numbers and arrays.

        Raises
        ------
        TypeError
            If it is of another type or shape.
        """
        if self.several and not (isinstance(value, tuple) and len(value) == len(self.columns)):
            raise TypeError(f"{what}: expected a tuple of {len(self.columns)}, got {value!r}")
        given = value if self.several else (value,)
        return [conform(*pair, what) for pair in zip(given, self.columns, strict=True)]


def conform(value: Any, column: Array, what: str) -> Any:
    """A value of just the type and shape that those of this column have.

    Numbers of Python's own have no more than a kind, as in NumPy's arithmetic.
    """
    array, shape = np.asarray(value), column.shape[1:]
    if type(value) in _WEAK and not shape and column.dtype.kind in _WEAK[type(value)]:
        return column.dtype.type(value)
    if array.dtype != column.dtype or array.shape != shape:
        raise TypeError(
            f"{what}: expected {_kind(column.dtype, shape)}, as chunks gave, got "
            f"{_kind(array.dtype, array.shape)}"
        )
    return array[()]


def _kind(dtype: Any, shape: tuple[int, ...]) -> str:
    return f"{dtype} of shape {shape}" if shape else str(dtype)


class Combine:
    """A function of two results, a ufunc for numbers of any number of parts, or one for each part.

    Raises
    ------
    TypeError
        If it is none of these.
    """

    def __init__(self, combine: Any) -> None:
        each = combine if isinstance(combine, tuple) else (combine,)
        for one in each:
            _check(one)
        self._each: tuple[Callable[..., Any], ...] = each
        self._apart = isinstance(combine, tuple)  # whether it gets parts, not tuples

    def check(self, partials: Partials) -> None:
        """Raise TypeError if it can be known that it won't do for results of these types."""
        if self._apart and len(self._each) != (count := len(partials.columns)):
            raise TypeError(
                f"combine: expected a function for each of the {count} parts that the kernel "
                f"returns, got {len(self._each)}"
            )
        for one, column in self._pairs(partials):
            if isinstance(one, np.ufunc):
                _resolve(one, column)

    def __call__(self, partials: Partials, initial: Any = None) -> Any:
        """All of them as one; an `initial` value comes before the first."""
        if initial is None and partials.empty:
            raise ValueError("there is nothing to reduce, and no initial= to be the result")
        if not partials.columns:  # nobody has said of what type results are
            given = initial if isinstance(initial, tuple) else (initial,)
            parts = tuple(np.asarray(one)[()] for one in given)
            return parts if isinstance(initial, tuple) else parts[0]
        if initial is None and not self._apart and len(partials.columns[0]) == 1:
            return partials.result([column[0] for column in partials.columns])
        self.check(partials)
        first = None if initial is None else partials.parts(initial, "initial")
        if partials.empty and first is not None:
            return partials.result(first)
        return self._combined(partials, first)

    def _combined(self, partials: Partials, first: list[Any] | None) -> Any:
        if partials.several and not self._apart and not isinstance(self._each[0], np.ufunc):
            return self._whole(partials, first)
        done = [_fold(*pair) for pair in self._pairs(partials)]
        if first is not None:
            rows = zip(first, done, strict=True)
            firsts = Partials(tuple(np.stack([*row]) for row in rows), partials.several)
            done = [_fold(*pair) for pair in self._pairs(firsts)]
        return partials.result(done)

    def _pairs(self, partials: Partials) -> list[tuple[Any, Array]]:
        each = self._each * (1 if self._apart else len(partials.columns))
        return list(zip(each, partials.columns, strict=True))

    def _whole(self, partials: Partials, first: list[Any] | None) -> Any:
        """By a function that gets tuples."""
        function, what = self._each[0], f"combine {name_of(self._each[0])}"

        def joined(one: Any, other: Any) -> Any:
            return tuple(partials.parts(function(one, other), what))

        done = _tree(joined, list(zip(*partials.columns, strict=True)))
        return done if first is None else joined(tuple(first), done)


def _check(function: Any) -> None:
    if isinstance(function, np.ufunc) and (function.nin, function.nout) != (2, 1):
        raise TypeError(
            f"combine: expected a function of two, got the ufunc {name_of(function)} of "
            f"{function.nin} inputs and {function.nout} outputs"
        )
    if not callable(function):
        raise TypeError(
            "combine: expected a ufunc or another function of two, or a tuple of them, got "
            f"{function!r}"
        )


def _resolve(ufunc: Any, column: Array) -> None:
    given = column.dtype
    try:
        found = ufunc.resolve_dtypes((given, given, None))[2]
    except TypeError as error:
        raise TypeError(f"combine {name_of(ufunc)} does not take two {given}: {error}") from None
    if found != given:
        raise TypeError(f"combine {name_of(ufunc)} makes {found} of two {given}, which chunks gave")


def _fold(function: Any, column: Array) -> Any:
    """A column as one."""
    if not isinstance(function, np.ufunc):
        what = f"combine {name_of(function)}"
        return _tree(lambda a, b: conform(function(a, b), column, what), list(column))
    while len(column) > 1:
        even = len(column) // 2 * 2
        column = np.concatenate([function(column[0:even:2], column[1:even:2]), column[even:]])
    return column[0]


def _tree(joined: Callable[[Any, Any], Any], items: list[Any]) -> Any:
    while len(items) > 1:
        even = len(items) // 2 * 2
        pairs = zip(items[0:even:2], items[1:even:2], strict=True)
        items = [*(joined(one, other) for one, other in pairs), *items[even:]]
    return items[0]

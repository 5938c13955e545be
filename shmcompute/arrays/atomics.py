"""`atomic_add` and its like: one element read and written in one step, whoever else writes it.

Each function is the processor's own instruction, from Python as in a jitted kernel: Numba finds
here what it compiles in place of a call, and Python calls a compiled one. It is plain
machine code that refers to nothing, so a kernel that holds it travels like any other.

What is wrong with the types of arguments Numba tells when it compiles a kernel; an index out of
bounds or a value out of range are raised by the kernel as it runs.

The file is long because its functions are documented for users.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, SupportsIndex

import numba
import numpy as np

from shmcompute.arrays import atomics_codegen
from shmcompute.arrays.atomics_codegen import (
    KINDS,
    exchanged,
    fraction,
    known_to_numba,
    lowered,
    misaligned,
    no_atomics,
    raised,
    unlike_indices,
)
from shmcompute.arrays.shared_array import SharedArray
from shmcompute.arrays.subclasses import refuse_subclass
from shmcompute.system.atomic_words import jitted
from shmcompute.typing import Array

Index = SupportsIndex | tuple[SupportsIndex, ...]
Number = int | float | np.integer[Any] | np.floating[Any]


def atomic_add(a: SharedArray | Array, index: Index, value: Number) -> Any:
    """Add to one element in one step, whoever else writes it; what it held before.

    Parameters
    ----------
    a : SharedArray or ndarray
        Integers of 8 to 64 bits, float32 or float64. A view of a SharedArray does as well.
    index : int or tuple of int
        Of one element; negative ones count from the end.
    value
        A number that the elements can hold. Integer sums wrap, as NumPy's do.

    Returns
    -------
    number
        What the element held before, of its own type.

    Raises
    ------
    IndexError
        For an index out of bounds, or of another number of dimensions.
    TypeError
        For elements that have no atomic operations, a fraction where they are integers, or an
        index that is no integer.
    OverflowError
        For a value that the elements can't hold.
    ValueError
        If `a` is read-only or its elements are not aligned.

    Notes
    -----
    In a jitted kernel all but IndexError and OverflowError are raised when it is compiled.

    Examples
    --------
    A histogram that many processes fill needs no lock:

    >>> import functools, numba, numpy as np, shmcompute as sc
    >>> @numba.njit
    ... def count(histogram, x):
    ...     for i in range(x.size):
    ...         sc.atomic_add(histogram, x[i], 1)
    >>> with sc.SharedArray(np.arange(1000) % 3) as x, sc.SharedArray.zeros(3, "i8") as histogram:
    ...     sc.parallel_apply(functools.partial(count, histogram), x)  # all see all of it
    ...     before = sc.atomic_add(histogram, -1, 10)
    ...     print(before, histogram.array)
    333 [334 333 343]
    """
    try:
        return _add(a if type(a) is np.ndarray else _elements(a), index, value)
    except Exception:  # noqa: BLE001  # `_slowly` says what is wrong
        return _slowly("atomic_add", _add, a, index, value)


def atomic_max(a: SharedArray | Array, index: Index, value: Number) -> Any:
    """Raise one element to `value` if that is more, in one step; what it held before.

    As for `numpy.maximum`, NaN is more than all.

    Parameters
    ----------
    a : SharedArray or ndarray
        Integers of 8 to 64 bits, float32 or float64. A view of a SharedArray does as well.
    index : int or tuple of int
        Of one element; negative ones count from the end.
    value
        A number that the elements can hold.

    Returns
    -------
    number
        What the element held before, of its own type.

    Raises
    ------
    IndexError, TypeError, OverflowError, ValueError
        As `atomic_add`.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.zeros((2, 2))) as best:
    ...     print(sc.atomic_max(best, (0, 1), 2.5), best[0, 1])
    0.0 2.5
    """
    try:
        return _max(a if type(a) is np.ndarray else _elements(a), index, value)
    except Exception:  # noqa: BLE001
        return _slowly("atomic_max", _max, a, index, value)


def atomic_min(a: SharedArray | Array, index: Index, value: Number) -> Any:
    """Lower one element to `value` if that is less, in one step; what it held before.

    As for `numpy.minimum`, NaN is less than all.

    Parameters
    ----------
    a : SharedArray or ndarray
        Integers of 8 to 64 bits, float32 or float64. A view of a SharedArray does as well.
    index : int or tuple of int
        Of one element; negative ones count from the end.
    value
        A number that the elements can hold.

    Returns
    -------
    number
        What the element held before, of its own type.

    Raises
    ------
    IndexError, TypeError, OverflowError, ValueError
        As `atomic_add`.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.full(3, 7)) as least:
    ...     print(sc.atomic_min(least, 0, 9), sc.atomic_min(least, 0, 2), least[0])
    7 7 2
    """
    try:
        return _min(a if type(a) is np.ndarray else _elements(a), index, value)
    except Exception:  # noqa: BLE001
        return _slowly("atomic_min", _min, a, index, value)


def compare_exchange(a: SharedArray | Array, index: Index, expected: Number, new: Number) -> Any:
    """Set one element to `new` if it is `expected`, in one step; what it held before.

    It was set if what is returned equals `expected`. Floats are compared by their bits: NaN equals
    itself, and 0.0 is not -0.0.

    Parameters
    ----------
    a : SharedArray or ndarray
        Integers of 8 to 64 bits, float32 or float64. A view of a SharedArray does as well.
    index : int or tuple of int
        Of one element; negative ones count from the end.
    expected, new
        Numbers that the elements can hold.

    Returns
    -------
    number
        What the element held before, of its own type.

    Raises
    ------
    IndexError, TypeError, OverflowError, ValueError
        As `atomic_add`.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.zeros(1, "i8")) as owner:
    ...     print(sc.compare_exchange(owner, 0, 0, 42), sc.compare_exchange(owner, 0, 0, 43))
    0 42
    """
    try:
        return _exchange(a if type(a) is np.ndarray else _elements(a), index, expected, new)
    except Exception:  # noqa: BLE001
        return _slowly("compare_exchange", _exchange, a, index, expected, new)


def _elements(a: Any) -> Any:
    """What Numba is handed: it takes any subclass of ndarray for its elements."""
    if isinstance(a, SharedArray):
        return a.array
    refuse_subclass("the array", a)
    return a


def _slowly(name: str, compiled: Any, a: Any, index: Any, *values: Any) -> Any:
    """Raise what is wrong with these arguments; if nothing is, call with plain ones."""
    array = a.array if isinstance(a, SharedArray) else a
    if not isinstance(array, np.ndarray):
        kind = type(array).__name__
        raise TypeError(f"{name}: expected a SharedArray or a view of one, got {kind}")
    refuse_subclass(f"{name}: the array", array)
    if array.dtype.name not in KINDS or not array.dtype.isnative:
        raise TypeError(no_atomics(name, array.dtype))
    if not array.flags.writeable:
        raise ValueError(f"{name}: the array is read-only")
    if not array.flags.aligned:
        raise ValueError(misaligned(name, array.dtype))
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # numba is not fully typed
        raise RuntimeError(
            f"{name} is machine code, which NUMBA_DISABLE_JIT switches off; unset it"
        )
    at = _checked_index(name, index, array.shape)
    plain = [_checked_value(name, value, array.dtype) for value in values]
    return compiled(np.asarray(array), at, *plain)


def _checked_index(name: str, index: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    parts = index if isinstance(index, tuple) else (index,)
    try:
        numbers = [operator.index(part) for part in parts]
    except TypeError:
        numbers = []
    if len(numbers) != len(parts) or any(isinstance(part, (bool, np.bool)) for part in parts):
        raise TypeError(f"{name}: index: expected an int or a tuple of int, got {index!r}")
    if len(numbers) != len(shape):
        raise IndexError(unlike_indices(name, len(numbers), len(shape)))
    for axis, (number, size) in enumerate(zip(numbers, shape, strict=True)):
        if not -size <= number < size:
            raise IndexError(
                f"{name}: index {number} is out of bounds for axis {axis} with size {size}"
            )
    return tuple(numbers)


def _checked_value(name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    one = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.size == 1)
    number = value.item() if one else value
    if not isinstance(number, (int, float)):
        kind = type(value).__name__
        raise TypeError(f"{name}: expected a number for elements of {dtype}, got {kind}")
    if dtype.kind == "f":
        try:
            return float(number)
        except OverflowError:
            raise OverflowError(f"{name}: a value does not fit into {dtype}") from None
    if isinstance(number, float):
        raise TypeError(fraction(name, type(value).__name__, dtype))
    known = np.iinfo(dtype)
    if not known.min <= number <= known.max:
        raise OverflowError(f"{name}: {value} does not fit into {dtype}")
    return number


known_to_numba(atomic_add, "add", "fadd")
known_to_numba(atomic_max, "max", raised, unsigned="umax")
known_to_numba(atomic_min, "min", lowered, unsigned="umin")
known_to_numba(compare_exchange, None, exchanged)


def _compiled_at_first_call(function: Callable[..., Any]) -> Any:
    """What makes the compiled one when it is first called, and has it take its place.

    Numba's first dispatcher costs a program 20 ms, which an import is not to spend.
    """

    def first(*args: Any) -> Any:
        if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # numba is not fully typed
            raise RuntimeError  # `_slowly` says what is wrong
        # Not without the GIL: to let go of it takes longer.
        compiled = jitted(function, nogil=False, inlines=[atomics_codegen.__file__])
        globals()[function.__name__] = compiled
        return compiled(*args)

    return first


@_compiled_at_first_call
def _add(a: Any, index: Any, value: Any) -> Any:
    return atomic_add(a, index, value)


@_compiled_at_first_call
def _max(a: Any, index: Any, value: Any) -> Any:
    return atomic_max(a, index, value)


@_compiled_at_first_call
def _min(a: Any, index: Any, value: Any) -> Any:
    return atomic_min(a, index, value)


@_compiled_at_first_call
def _exchange(a: Any, index: Any, expected: Any, new: Any) -> Any:
    return compare_exchange(a, index, expected, new)

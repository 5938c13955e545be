"""`atomic_add` and its kin: one element read and written in one step, whoever else writes it.

Each function is the processor's own instruction, from Python as in a jitted kernel: Numba finds
here what it compiles in place of a call, and Python calls a compiled twin. It is plain
machine code that refers to nothing, so a kernel that holds it travels like any other.

What is wrong with the types of arguments Numba tells when it compiles a kernel; an index out of
bounds or a value out of range are raised by the kernel as it runs.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, SupportsIndex

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.callconv import RETCODE_USEREXC
from numba.core.errors import TypingError
from numba.extending import intrinsic, lower_builtin, type_callable

from shmcompute.array import SharedArray
from shmcompute.storage import Array
from shmcompute.words import jitted

Index = SupportsIndex | tuple[SupportsIndex, ...]
Number = int | float | np.integer[Any] | np.floating[Any]
_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic  # else its type is without arguments

_I64 = ir.IntType(64)
_KINDS = {kind: getattr(types, kind) for kind in ("float32", "float64")} | {
    f"{sign}int{bits}": getattr(types, f"{sign}int{bits}")
    for sign in ("", "u")
    for bits in (8, 16, 32, 64)
}
_WANTED = "integers of 8 to 64 bits, float32 or float64, in the machine's byte order"


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
    In a jitted kernel all but IndexError and OverflowError are told when it is compiled.

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
        return _add(a.array if type(a) is SharedArray else a, index, value)
    except Exception:  # noqa: BLE001  # told below, in our words
        return _slowly("atomic_add", _add, a, index, value)


def atomic_max(a: SharedArray | Array, index: Index, value: Number) -> Any:
    """Raise one element to `value` if that is more, in one step; what it held before.

    Parameters and errors are those of `atomic_add`. As for `numpy.maximum`, NaN is more than all.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.zeros((2, 2))) as best:
    ...     print(sc.atomic_max(best, (0, 1), 2.5), best[0, 1])
    0.0 2.5
    """
    try:
        return _max(a.array if type(a) is SharedArray else a, index, value)
    except Exception:  # noqa: BLE001
        return _slowly("atomic_max", _max, a, index, value)


def atomic_min(a: SharedArray | Array, index: Index, value: Number) -> Any:
    """Lower one element to `value` if that is less, in one step; what it held before.

    Parameters and errors are those of `atomic_add`. As for `numpy.minimum`, NaN is less than all.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.full(3, 7)) as least:
    ...     print(sc.atomic_min(least, 0, 9), sc.atomic_min(least, 0, 2), least[0])
    7 7 2
    """
    try:
        return _min(a.array if type(a) is SharedArray else a, index, value)
    except Exception:  # noqa: BLE001
        return _slowly("atomic_min", _min, a, index, value)


def compare_exchange(a: SharedArray | Array, index: Index, expected: Number, new: Number) -> Any:
    """Set one element to `new` if it is `expected`, in one step; what it held before.

    It was set if what is returned equals `expected`. Floats are compared by their bits: NaN equals
    itself, and 0.0 is not -0.0. Parameters and errors are otherwise those of `atomic_add`.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.zeros(1, "i8")) as owner:
    ...     print(sc.compare_exchange(owner, 0, 0, 42), sc.compare_exchange(owner, 0, 0, 43))
    0 42
    """
    try:
        return _exchange(a.array if type(a) is SharedArray else a, index, expected, new)
    except Exception:  # noqa: BLE001
        return _slowly("compare_exchange", _exchange, a, index, expected, new)


# What is wrong


def _slowly(name: str, twin: Any, a: Any, index: Any, *values: Any) -> Any:
    """Say what was wrong; where nothing is, call again with plain arguments."""
    array = a.array if isinstance(a, SharedArray) else a
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a SharedArray or a view of one, got {_told(array)}")
    if array.dtype.name not in _KINDS or not array.dtype.isnative:
        raise TypeError(_no_atomics(name, array.dtype))
    if not array.flags.writeable:
        raise ValueError(f"{name}: the array is read-only")
    if not array.flags.aligned:
        raise ValueError(_misaligned(name, array.dtype))
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # numba is not fully typed
        raise RuntimeError(
            f"{name} is machine code, which NUMBA_DISABLE_JIT switches off; unset it"
        )
    at = _checked_index(name, index, array.shape)
    plain = [_checked_value(name, value, array.dtype) for value in values]
    return twin(np.asarray(array), at, *plain)


def _no_atomics(name: str, dtype: object) -> str:
    return (
        f"{name}: elements of {dtype} have no atomic operations; expected {_WANTED}. Take a view "
        "of such a type (datetime64: .view('i8'), bool: .view('u1')), or with arr.lock()"
    )


def _misaligned(name: str, dtype: object) -> str:
    return (
        f"{name}: elements of {dtype} are not aligned here, so no processor writes one in one "
        "step; align the fields (np.dtype(..., align=True)), or use with arr.lock()"
    )


def _checked_index(name: str, index: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    parts = index if isinstance(index, tuple) else (index,)
    try:
        numbers = [operator.index(part) for part in parts]
    except TypeError:
        numbers = []
    if len(numbers) != len(parts) or any(isinstance(part, (bool, np.bool)) for part in parts):
        raise TypeError(f"{name}: index: expected an int or a tuple of int, got {index!r}")
    if len(numbers) != len(shape):
        raise IndexError(_indices(name, len(numbers), len(shape)))
    for axis, (number, size) in enumerate(zip(numbers, shape, strict=True)):
        if not -size <= number < size:
            raise IndexError(
                f"{name}: index {number} is out of bounds for axis {axis} with size {size}"
            )
    return tuple(numbers)


def _indices(name: str, given: int, ndim: int) -> str:
    return f"{name}: expected one index for each of {ndim} dimensions, got {given}"


def _checked_value(name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    number = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    if not isinstance(number, (int, float)):
        raise TypeError(f"{name}: expected a number for elements of {dtype}, got {_told(value)}")
    if dtype.kind == "f":
        return float(number)
    if isinstance(number, float):
        raise TypeError(_fraction(name, type(value).__name__, dtype))
    known = np.iinfo(dtype)
    if not known.min <= number <= known.max:
        raise OverflowError(f"{name}: {value} does not fit into {dtype}")
    return number


def _fraction(name: str, value: object, dtype: object) -> str:
    return f"{name}: a {value} does not go into elements of {dtype}; round it, or use float64"


def _told(value: object) -> str:
    return type(value).__name__


# What Numba compiles


def _operands(name: str, a: Any, index: Any, *values: Any) -> Any:
    """The type of the elements, if these types of arguments do; else a TypingError."""
    if not isinstance(a, types.Array):
        raise TypingError(f"{name}: expected an array, got {a}")
    if a.dtype.name not in _KINDS:
        raise TypingError(_no_atomics(name, a.dtype))
    if not a.mutable:
        raise TypingError(f"{name}: the array is read-only")
    if not a.aligned:
        raise TypingError(_misaligned(name, a.dtype))
    parts = tuple(index) if _is_tuple(index) else (index,)
    if not all(isinstance(part, types.Integer) for part in parts):
        raise TypingError(f"{name}: index: expected an int or a tuple of int, got {index}")
    if len(parts) != a.ndim:
        raise TypingError(_indices(name, len(parts), a.ndim))
    for value in values:
        if not isinstance(value, (types.Integer, types.Boolean, types.Float)):
            raise TypingError(f"{name}: expected a number for elements of {a.dtype}, got {value}")
        if isinstance(value, types.Float) and not isinstance(a.dtype, types.Float):
            raise TypingError(_fraction(name, value, a.dtype))
    return a.dtype


def _is_tuple(index: Any) -> bool:
    return isinstance(index, types.BaseTuple)


def _is_unsigned(kind: Any) -> bool:
    return kind in types.unsigned_domain


def _raise(context: Any, builder: Any, error: Any, told: tuple[Any, ...], *kinds: Any) -> None:
    """Raise from where we are, or go to the handler: Numba can't do both with values told.

    Its mark is set, too: by that Numba sees that who raises needn't let go of arrays, and then does
    not take hold of them in the first place. Else each exception would keep them for ever.
    """
    convention = context.call_conv
    convention.set_dynamic_user_exc(builder, error, told, kinds)
    mark = builder.module.add_metadata([ir.IntType(1)(1)])
    builder.block.instructions[-1].set_metadata("numba_exception_output", mark)
    convention.check_try_status(builder)
    handler: Any = getattr(builder, "_in_try_block", False)
    if handler:
        builder.branch(handler["target"])
    else:
        convention._return_errcode_raw(builder, RETCODE_USEREXC)


def _element(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """A pointer to the element that the first two of these arguments name, or IndexError."""
    kind, index_kind = signature.args[:2]
    array = context.make_array(kind)(context, builder, args[0])
    sizes = cgutils.unpack_tuple(builder, array.shape, kind.ndim)
    several = _is_tuple(index_kind)
    kinds = tuple(index_kind) if several else (index_kind,)
    numbers = cgutils.unpack_tuple(builder, args[1], kind.ndim) if several else [args[1]]
    at = [
        _bounded(context, builder, context.cast(builder, number, one, types.intp), one, axis, size)
        for axis, (number, one, size) in enumerate(zip(numbers, kinds, sizes, strict=True))
    ]
    pointer = cgutils.get_item_pointer(context, builder, kind, array, at)
    _check_aligned(context, builder, pointer, kind.dtype)
    return pointer


def _bounded(context: Any, builder: Any, number: Any, kind: Any, axis: int, size: Any) -> Any:
    at = number
    if not _is_unsigned(kind):
        negative = builder.icmp_signed("<", number, number.type(0))
        at = builder.select(negative, builder.add(number, size), number)
    with builder.if_then(builder.icmp_unsigned(">=", at, size), likely=False):
        told = ("index is out of bounds; index, axis, size:", number, axis, size)
        _raise(context, builder, IndexError, told, types.intp, types.intp)
    return at


def _check_aligned(context: Any, builder: Any, pointer: Any, kind: Any) -> None:
    """ValueError unless the element is aligned: Numba's types tell that of records only."""
    low = builder.and_(builder.ptrtoint(pointer, _I64), _I64(kind.bitwidth // 8 - 1))
    with builder.if_then(builder.icmp_unsigned("!=", low, _I64(0)), likely=False):
        context.call_conv.return_user_exc(builder, ValueError, (_misaligned("atomic", kind),))


def _fitting(context: Any, builder: Any, value: Any, given: Any, kind: Any) -> Any:
    """A value as an element, or OverflowError."""
    element = context.cast(builder, value, given, kind)
    if isinstance(kind, types.Float) or isinstance(given, types.Boolean):
        return element
    fits = builder.icmp_signed("==", context.cast(builder, element, kind, given), value)
    if _is_unsigned(given) and not _is_unsigned(kind):
        fits = builder.and_(fits, builder.icmp_signed(">=", element, element.type(0)))
    if _is_unsigned(kind) and not _is_unsigned(given):
        fits = builder.and_(fits, builder.icmp_signed(">=", value, value.type(0)))
    with builder.if_then(builder.not_(fits), likely=False):
        _raise(context, builder, OverflowError, ("value out of range; it was:", value), given)
    return element


@_intrinsic
def _loaded(_: Any, address: Any, like: Any) -> Any:
    """The element at an address, of the type of `like`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(like.bitwidth)
        place = builder.inttoptr(args[0], wide.as_pointer())
        word = builder.load_atomic(place, "seq_cst", like.bitwidth // 8)
        return builder.bitcast(word, context.get_value_type(like))

    return like(types.int64, like), generate


@_intrinsic
def _swapped(_: Any, address: Any, expected: Any, new: Any) -> Any:
    """Set the element at an address if it is `expected`; what it was, and whether it was set."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide = ir.IntType(expected.bitwidth)  # processors compare bits
        place = builder.inttoptr(args[0], wide.as_pointer())
        old, put = (builder.bitcast(value, wide) for value in args[1:])
        result = builder.cmpxchg(place, old, put, "seq_cst", "seq_cst")
        seen = builder.bitcast(builder.extract_value(result, 0), args[1].type)
        done = builder.extract_value(result, 1)
        return context.make_tuple(builder, signature.return_type, (seen, done))

    pair = types.Tuple((expected, types.boolean))
    return pair(types.int64, expected, expected), generate


def _raised(address: Any, value: Any) -> Any:
    old, done = _loaded(address, value), False
    while not (done or old >= value or old != old):  # noqa: PLR0124  # NaN stays
        old, done = _swapped(address, old, value)
    return old


def _lowered(address: Any, value: Any) -> Any:
    old, done = _loaded(address, value), False
    while not (done or old <= value or old != old):  # noqa: PLR0124  # NaN stays
        old, done = _swapped(address, old, value)
    return old


def _exchanged(address: Any, expected: Any, new: Any) -> Any:
    return _swapped(address, expected, new)[0]


# Not by `overload`: its functions would be called, arrays and all, and Numba forgets to let go of
# arrays that it has passed to a function that raises.


def _known_to_numba(
    function: Any, operation: str | None, floating: Any, *, unsigned: str | None = None
) -> None:
    """Have Numba compile a function: to an instruction, or for floats, or if there is none, a loop.

    Parameters
    ----------
    function
        The public one.
    operation, unsigned : str, optional
        LLVM's ``atomicrmw`` for integers, and for unsigned ones where that differs.
    floating : str or callable
        The same for floats, or the loop over an address and values.
    """
    operands = len(inspect.signature(function).parameters)

    @type_callable(function)
    def _typed(_: Any) -> Any:
        def three(a: Any, index: Any, value: Any) -> Any:
            return _operands(function.__name__, a, index, value)

        def four(a: Any, index: Any, expected: Any, new: Any) -> Any:
            return _operands(function.__name__, a, index, expected, new)

        return three if operands == 3 else four

    @lower_builtin(function, types.Array, *[types.Any] * (operands - 1))
    def _generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.args[0].dtype
        pointer = _element(context, builder, signature, args)
        values = [
            _fitting(context, builder, value, given, kind)
            for value, given in zip(args[2:], signature.args[2:], strict=True)
        ]
        way = floating if isinstance(kind, types.Float) or operation is None else operation
        if unsigned is not None and _is_unsigned(kind):
            way = unsigned
        if isinstance(way, str):
            return builder.atomic_rmw(way, pointer, *values, "seq_cst")
        loop = kind(types.int64, *[kind] * len(values))
        address = builder.ptrtoint(pointer, _I64)
        return context.compile_internal(builder, way, loop, [address, *values])


_known_to_numba(atomic_add, "add", "fadd")
_known_to_numba(atomic_max, "max", _raised, unsigned="umax")
_known_to_numba(atomic_min, "min", _lowered, unsigned="umin")
_known_to_numba(compare_exchange, None, _exchanged)


# What Python calls


def _twin(function: Callable[..., Any]) -> Any:
    return jitted(function, nogil=False)  # it takes less than to let go of the GIL


@_twin
def _add(a: Any, index: Any, value: Any) -> Any:
    return atomic_add(a, index, value)


@_twin
def _max(a: Any, index: Any, value: Any) -> Any:
    return atomic_max(a, index, value)


@_twin
def _min(a: Any, index: Any, value: Any) -> Any:
    return atomic_min(a, index, value)


@_twin
def _exchange(a: Any, index: Any, expected: Any, new: Any) -> Any:
    return compare_exchange(a, index, expected, new)

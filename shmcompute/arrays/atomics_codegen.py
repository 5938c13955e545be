"""What Numba compiles in place of a call of `atomic_add` and its like.

`atomics` keeps what it compiles of this on disk, under a key that changes when this file does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.callconv import RETCODE_USEREXC
from numba.core.errors import TypingError
from numba.extending import intrinsic, lower_builtin, type_callable

_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic  # else its type is without arguments

_I64 = ir.IntType(64)
KINDS = {"float32", "float64"} | {f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)}
_WANTED = "integers of 8 to 64 bits, float32 or float64, in the machine's byte order"


def no_atomics(name: str, dtype: object) -> str:
    """What to say of elements of no such type."""
    return (
        f"{name}: elements of {dtype} have no atomic operations; expected {_WANTED}. Take a view "
        "of such a type (datetime64: .view('i8'), bool: .view('u1')), or with arr.lock()"
    )


def misaligned(name: str, dtype: object) -> str:
    """What to say of elements that begin anywhere."""
    return (
        f"{name}: elements of {dtype} are not aligned here, so no processor writes one in one "
        "step; align the fields (np.dtype(..., align=True)), or use with arr.lock()"
    )


def unlike_indices(name: str, given: int, ndim: int) -> str:
    """What to say of too few indices, or too many."""
    return f"{name}: expected one index for each of {ndim} dimensions, got {given}"


def fraction(name: str, value: object, dtype: object) -> str:
    """What to say of a float for integers."""
    return f"{name}: a {value} does not go into elements of {dtype}; round it, or use float64"


def _operands(name: str, a: Any, index: Any, *values: Any) -> Any:
    """The type of the elements, if these types of arguments do; else a TypingError."""
    if not isinstance(a, types.Array):
        raise TypingError(f"{name}: expected an array, got {a}")
    if a.dtype.name not in KINDS:
        raise TypingError(no_atomics(name, a.dtype))
    if not a.mutable:
        raise TypingError(f"{name}: the array is read-only")
    if not a.aligned:
        raise TypingError(misaligned(name, a.dtype))
    parts = tuple(index) if _is_tuple(index) else (index,)
    if not all(isinstance(part, types.Integer) for part in parts):
        raise TypingError(f"{name}: index: expected an int or a tuple of int, got {index}")
    if len(parts) != a.ndim:
        raise TypingError(unlike_indices(name, len(parts), a.ndim))
    for value in values:
        if not isinstance(value, (types.Integer, types.Boolean, types.Float)):
            raise TypingError(f"{name}: expected a number for elements of {a.dtype}, got {value}")
        if isinstance(value, types.Float) and not isinstance(a.dtype, types.Float):
            raise TypingError(fraction(name, value, a.dtype))
    return a.dtype


def _is_tuple(index: Any) -> bool:
    return isinstance(index, types.BaseTuple)


def _is_unsigned(kind: Any) -> bool:
    return kind in types.unsigned_domain


def _raise(context: Any, builder: Any, error: Any, values: tuple[Any, ...], *kinds: Any) -> None:
    """Raise from here, or go to the handler: Numba can't do both with values in the message.

    Its mark is set, too: by that Numba sees that who raises needn't let go of arrays, and then does
    not take hold of them in the first place. Else each exception would keep them for ever.
    """
    convention = context.call_conv
    convention.set_dynamic_user_exc(builder, error, values, kinds)
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
        values = ("index is out of bounds; index, axis, size:", number, axis, size)
        _raise(context, builder, IndexError, values, types.intp, types.intp)
    return at


def _check_aligned(context: Any, builder: Any, pointer: Any, kind: Any) -> None:
    """ValueError unless the element is aligned: Numba's types tell that of records only."""
    low = builder.and_(builder.ptrtoint(pointer, _I64), _I64(kind.bitwidth // 8 - 1))
    with builder.if_then(builder.icmp_unsigned("!=", low, _I64(0)), likely=False):
        context.call_conv.return_user_exc(builder, ValueError, (misaligned("atomic", kind),))


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


def raised(address: Any, value: Any) -> Any:
    """Raise the element at an address to a value; what it was."""
    old, done = _loaded(address, value), False
    while not (done or old >= value or old != old):  # noqa: PLR0124  # NaN stays
        old, done = _swapped(address, old, value)
    return old


def lowered(address: Any, value: Any) -> Any:
    """Lower the element at an address to a value; what it was."""
    old, done = _loaded(address, value), False
    while not (done or old <= value or old != old):  # noqa: PLR0124  # NaN stays
        old, done = _swapped(address, old, value)
    return old


def exchanged(address: Any, expected: Any, new: Any) -> Any:
    """Set the element at an address if it is the expected one; what it was."""
    return _swapped(address, expected, new)[0]


# Not by `overload`: its functions would be called, arrays and all, and Numba forgets to let go of
# arrays that it has passed to a function that raises.


def known_to_numba(
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

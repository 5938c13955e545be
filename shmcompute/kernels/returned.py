"""What kernels return: nothing, or what they were given, as every function with ``out=`` does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numba.core import ir, types
from numba.core.compiler import run_frontend

from shmcompute.arrays import SharedArray

# Calls by these names, and NumPy's ufuncs without an output, return an array that is new.
_MAKERS = frozenset(
    {"array", "arange", "astype", "copy", "empty", "full", "linspace", "ones", "zeros"}
    | {"empty_like", "full_like", "ones_like", "zeros_like"}
)


def is_own(result: Any, args: Iterable[Any]) -> bool:
    """Whether a result, or each of a tuple, is one of the arrays that a kernel was given."""
    if isinstance(result, tuple):
        args = list(args)
        return bool(result) and all(is_own(one, args) for one in result)
    if isinstance(result, SharedArray):
        return any(result is arg for arg in args)
    return isinstance(result, np.ndarray) and any(
        result is arg or np.may_share_memory(result, arg)
        for arg in args
        if isinstance(arg, (np.ndarray, SharedArray))
    )


def may_be_own(return_type: Any, argument_types: Sequence[Any], function: Any) -> bool:
    """Whether a jitted function may return what it was given, as far as can be told before."""
    several = isinstance(return_type, types.BaseTuple)
    returned: Sequence[Any] = tuple(return_type) if several else [return_type]
    dtypes = {kind.dtype for kind in argument_types if isinstance(kind, types.Array)}
    alike = [isinstance(kind, types.Array) and kind.dtype in dtypes for kind in returned]
    return bool(alike) and all(alike) and not _returns_new(function)


def _returns_new(function: Any) -> bool:
    """Whether the code says that it returns an array of its own making."""
    code = run_frontend(function)
    values = [
        block.terminator.value
        for block in code.blocks.values()
        if isinstance(block.terminator, ir.Return)
    ]
    return any(_is_new(code, value, set()) for value in values)


def _is_new(code: Any, value: Any, seen: set[str]) -> bool:
    """Whether a value of Numba's intermediate representation is surely no argument."""
    if isinstance(value, ir.Var):
        if value.name in seen:
            return False
        seen.add(value.name)
        return any(_is_new(code, given, seen) for given in code._definitions[value.name])
    if not isinstance(value, ir.Expr):
        return False
    if value.op in ("cast", "inplace_binop"):
        return _is_new(code, value.value if value.op == "cast" else value.lhs, seen)
    if value.op in ("build_tuple", "exhaust_iter"):
        parts = value.items if value.op == "build_tuple" else [value.value]
        return any(_is_new(code, part, seen) for part in parts)
    return value.op in ("binop", "unary") or (value.op == "call" and _makes(code, value))


def _makes(code: Any, call: Any) -> bool:
    """Whether a call is one that makes an array."""
    for made in code._definitions[call.func.name]:
        if getattr(made, "op", "") == "getattr" and made.attr in _MAKERS:
            return True
        ufunc = _resolved(code, made)
        if isinstance(ufunc, np.ufunc):
            return len(call.args) == ufunc.nin and "out" not in dict(call.kws)
    return False


def _resolved(code: Any, value: Any) -> Any:
    """The object that a global, or an attribute of a global module, is."""
    if isinstance(value, ir.Var):
        return next((_resolved(code, made) for made in code._definitions[value.name]), None)
    if isinstance(value, ir.Expr) and value.op == "getattr":
        return getattr(_resolved(code, value.value), value.attr, None)
    return getattr(value, "value", None) if isinstance(value, (ir.Global, ir.FreeVar)) else None

"""Checked indices that are named when they are out of bounds.

Numba's own check, with ``boundscheck=True``, says neither which index it was nor how many there
are.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.compiler import Compiler

from shmcompute.system.patching import Function, patched


class NamedIndexError(IndexError):
    """Raised by machine code, which can't put a text together."""

    def __init__(self, index: int, axis: int, size: int) -> None:
        super().__init__(f"index {index} is out of bounds for axis {axis} with size {size}")


class NamingCompiler(Compiler):
    """Numba's compiler, with checks that name what they find."""

    def compile_extra(self, func: Any) -> Any:
        """Compile a function."""
        with patched(cgutils, "do_boundscheck", _naming):
            return super().compile_extra(func)


def _naming(check: Function) -> Function:
    """What raises `NamedIndexError` where Numba's `check` raises its own IndexError.

    A negative index has been counted from the end by then, so one that is negative still was less
    by all of the axis.
    """

    def named(context: Any, builder: Any, index: Any, size: Any, axis: Any = None) -> None:
        if axis is None or index.type != size.type:
            check(context, builder, index, size, axis)
            return
        above = builder.icmp_signed(">=", index, size)
        below = builder.icmp_signed("<", index, index.type(0))
        given = builder.select(below, builder.sub(index, size), index)
        along = axis if isinstance(axis, ir.Value) else index.type(axis)
        with cgutils.if_unlikely(builder, builder.or_(above, below)):
            context.call_conv.return_dynamic_user_exc(
                builder, NamedIndexError, (given, along, size), (types.intp,) * 3
            )

    return named

"""Kernels that are NumPy or Numba ufuncs, tried on a chunk of no elements before they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba.core.errors import NumbaError
from numba.np.ufunc.dufunc import DUFunc
from numba.np.ufunc.gufunc import GUFunc

from shmcompute.chunking import Arguments, Chunk, Part
from shmcompute.errors import KernelTypeError
from shmcompute.kernels.base import Kernel, name_of, rewrap, unwrap
from shmcompute.kernels.captured import Captures
from shmcompute.kernels.variants import bounded_gufunc

UFUNCS = (np.ufunc, DUFunc, GUFunc)


@dataclass(frozen=True, eq=False)
class UfuncKernel(Kernel):
    """A NumPy or Numba ufunc, called with ``out=`` the first split argument."""

    outputs: tuple[int, ...]  # positions of the arguments that are written
    inputs: tuple[int, ...]

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> None:
        ufunc, partial_args, _ = unwrap(self.function)
        args = arguments.at((0, 0))
        try:
            _resolve(ufunc, [*partial_args, *(args[i] for i in (*self.inputs, *self.outputs))])
        except (TypeError, ValueError, NumbaError) as error:
            raise KernelTypeError(
                f"ufunc {self.name} does not take these arguments: {error}"
            ) from error

    def __call__(self, args: list[Any]) -> None:
        given = [args[i] for i in self.inputs]
        if self.outputs:
            self.function(*given, out=tuple(args[i] for i in self.outputs))
        else:
            self.function(*given)  # a gufunc without outputs writes its arguments

    def captures(self) -> Captures:
        return Captures() if self.outputs else super().captures()  # it writes its outputs alone

    def bounded(self) -> Kernel:
        ufunc = unwrap(self.function)[0]
        if not isinstance(ufunc, GUFunc):
            return self
        return replace(self, function=rewrap(self.function, bounded_gufunc(ufunc)))


def _resolve(ufunc: Any, operands: list[Any]) -> None:
    """Raise if the ufunc has no loop for operands of these types."""
    inner = getattr(ufunc, "ufunc", ufunc)  # Numba wraps its own
    if isinstance(inner, np.ufunc) and inner.types:
        inner.resolve_dtypes(tuple(map(_type, operands)))
    elif ufunc.signature is None:
        # A dynamic ufunc without loops so far: a call on arrays of no elements compiles one.
        empty = [np.empty(0, x.dtype) if isinstance(x, np.ndarray) else x for x in operands]
        ufunc(*empty[: ufunc.nin], out=tuple(empty[ufunc.nin :]))


def _type(operand: Any) -> Any:
    """The type of an operand, as `ufunc.resolve_dtypes` takes it."""
    return operand.dtype if isinstance(operand, (np.ndarray, np.generic)) else type(operand)


def split_operands(
    ufunc: Any, partial_args: int, arguments: Arguments
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which arguments a ufunc writes, and which it reads beside its partial ones."""
    count = len(arguments.bound)
    nin = ufunc.nin - partial_args
    written = [i for i, arg in enumerate(arguments.bound) if isinstance(arg, Part) and arg.writes]
    outputs = tuple(written[: ufunc.nout])
    separate = count == nin + ufunc.nout
    inputs = tuple(i for i in range(count) if not (separate and i in outputs))
    if len(outputs) < ufunc.nout or len(inputs) != nin:
        raise KernelTypeError(
            f"ufunc {name_of(ufunc)} takes {nin} inputs and {ufunc.nout} outputs, got {count} "
            f"arguments of which {len(written)} are split for writing; pass the inputs (the first "
            "split argument is then overwritten), or the outputs and the inputs"
        )
    return outputs, inputs

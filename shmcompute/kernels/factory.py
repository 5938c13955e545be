"""`kernel`: the kernel that a callable is, of whichever kind."""

from __future__ import annotations

from typing import Any

from numba.core.dispatcher import Dispatcher

from shmcompute.chunking import Arguments, refuse_generators
from shmcompute.kernels.base import Kernel, unwrap
from shmcompute.kernels.jitted import NumbaKernel
from shmcompute.kernels.python import PythonKernel
from shmcompute.kernels.ufunc import UFUNCS, UfuncKernel, split_operands


def kernel(function: Any, arguments: Arguments) -> Kernel:
    """The kernel that `function` is.

    Raises
    ------
    TypeError
        If it can't be called, or is a partial that brings a random generator along.
    KernelTypeError
        If a ufunc does not take that many arguments.
    """
    if not callable(function):
        raise TypeError(f"kernel: expected a callable, got {type(function).__name__}")
    if isinstance(function, Dispatcher):
        return NumbaKernel(function, function)
    inner, partial_args, keywords = unwrap(function)
    for value in (*partial_args, *keywords.values()):
        refuse_generators("the kernel's partial", value)
    if isinstance(inner, Dispatcher):
        return NumbaKernel(function, inner, partial_args, keywords)
    if isinstance(inner, UFUNCS):
        return UfuncKernel(function, *split_operands(inner, len(partial_args), arguments))
    return PythonKernel(function)

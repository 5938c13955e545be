"""`kernel`: the kernel that a callable is, of whichever kind."""

from __future__ import annotations

from typing import Any

from numba.core.dispatcher import Dispatcher

from shmcompute.chunking import Arguments
from shmcompute.kernels.base import Kernel, unwrap
from shmcompute.kernels.jitted import NumbaKernel
from shmcompute.kernels.python import PythonKernel
from shmcompute.kernels.ufunc import UFUNCS, UfuncKernel, split_operands


def kernel(function: Any, arguments: Arguments) -> Kernel:
    """The kernel that `function` is.

    Raises
    ------
    TypeError
        If it can't be called.
    KernelTypeError
        If a ufunc does not take that many arguments.
    """
    if not callable(function):
        raise TypeError(f"kernel: expected a callable, got {type(function).__name__}")
    if isinstance(function, Dispatcher):
        return NumbaKernel(function, function)
    inner, partial_args, keywords = unwrap(function)
    if isinstance(inner, Dispatcher):
        return NumbaKernel(function, inner, partial_args, keywords)
    if isinstance(inner, UFUNCS):
        return UfuncKernel(function, *split_operands(inner, len(partial_args), arguments))
    return PythonKernel(function)

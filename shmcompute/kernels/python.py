"""Kernels that are Python callables, of which only the arity is known before they run."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from numba.core import config as numba_config

from shmcompute.chunking import Arguments, Chunk
from shmcompute.kernels.base import Kernel, Kinds
from shmcompute.kernels.native_plan import NeedsPython


class PythonKernel(Kernel):
    """Any callable."""

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> None:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            return  # a C function without a signature
        self.check_arity(signature, arguments.sample(), {})

    def native(
        self, arguments: Arguments, chunks: Sequence[Chunk], kinds: Kinds | None = None
    ) -> NeedsPython:
        if getattr(numba_config, "DISABLE_JIT", False):
            return NeedsPython("NUMBA_DISABLE_JIT is set, so what is jitted is a Python function")
        return NeedsPython("it is a Python function")

"""Kernels that are Python callables, of which only the arity is known before they run."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

from shmcompute.chunking import Arguments, Chunk
from shmcompute.kernels.base import Kernel


class PythonKernel(Kernel):
    """Any callable."""

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> None:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            return  # a C function without a signature
        self.check_arity(signature, arguments.sample(), {})

"""Kernels that are Python callables, of which only the arity is known before they run."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from shmcompute.chunking import Arguments, Chunk
from shmcompute.kernels.base import Kernel, check_arity, check_result, name_of
from shmcompute.kernels.native_plan import NativeCall


@dataclass(frozen=True, eq=False)
class PythonKernel:
    """Any callable."""

    function: Callable[..., Any]

    @property
    def name(self) -> str:
        return name_of(self.function)

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> None:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            return  # a C function that does not tell
        check_arity(self.function, signature, arguments.at((0, 0)), {})

    def __call__(self, args: list[Any]) -> None:
        check_result(self.function, self.function(*args))

    def threaded(self) -> Kernel:
        return self

    def bounded(self) -> Kernel:
        return self

    def native(self, arguments: Arguments, chunks: Sequence[Chunk]) -> NativeCall | None:
        return None

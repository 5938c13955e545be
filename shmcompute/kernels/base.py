"""What a kernel is: a callable for chunks, checked before anything runs.

A kernel writes in place and returns nothing, or what it was given. There is a file for each kind of
callable, and `factory` finds the kind.
"""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from shmcompute.chunking import Arguments, Chunk
from shmcompute.errors import KernelTypeError
from shmcompute.kernels.captured import Captures
from shmcompute.kernels.native_plan import NativeCall, NeedsPython
from shmcompute.kernels.returned import is_own


class Kinds(NamedTuple):
    """Of what types arguments are in the chunks of a call, found once; it refers to no array."""

    types: frozenset[tuple[Any, ...]]  # Numba's, of what a partial passes and of the arguments
    fingerprints: frozenset[Any] | None  # of the arguments, see `jitted`


@dataclass(frozen=True, eq=False)
class Kernel(ABC):
    """What a plan calls for each chunk."""

    function: Any  # the callable that the caller gave

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self.function)

    @abstractmethod
    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> Kinds | None:
        """Raise KernelTypeError if it does not take what these chunks would call it with.

        Returns
        -------
        Kinds or None
            The types that were found, of a jitted kernel.
        """

    def __call__(self, args: list[Any]) -> None:
        """Run it on one chunk."""
        result = self.function(*args)
        if result is not None:
            _, partial_args, keywords = unwrap(self.function)
            if not is_own(result, [*args, *partial_args, *keywords.values()]):
                raise KernelTypeError(
                    f"kernel {self.name} returned {type(result).__name__}: a kernel must write in "
                    "place (x[:] = ...) and return nothing, or an array that it was given"
                )

    def threaded(self) -> Kernel:
        """The same kernel, as several threads of one process should call it."""
        return self

    def bounded(self) -> Kernel:
        """The same kernel, with an IndexError for each index out of bounds, if that is possible."""
        return self

    def native(
        self, arguments: Arguments, chunks: Sequence[Chunk], kinds: Kinds | None = None
    ) -> NativeCall | NeedsPython:
        """The same call without Python, or why that is not possible; `kinds`: of `check`."""
        return NeedsPython("it is no jitted function")

    def captures(self) -> Captures:
        """The arrays that it may write although they are no arguments of the call."""
        found = Captures()
        found.look(self.function, "itself")
        return found

    def check_arity(
        self, signature: inspect.Signature, args: list[Any], keywords: Mapping[str, Any]
    ) -> None:
        """Raise KernelTypeError if a function of this signature does not take these arguments."""
        try:
            signature.bind(*args, **keywords)
        except TypeError as error:
            raise KernelTypeError(
                f"kernel {self.name}{signature} was given {len(args)} arguments: {error}"
            ) from None


def unwrap(function: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What a (nested) partial calls, and what it passes; `partial` flattens itself."""
    if isinstance(function, functools.partial):
        return function.func, function.args, function.keywords
    return function, (), {}


def rewrap(function: Any, variant: Any) -> Any:
    """A function, or a partial of one, with `variant` called in its place."""
    _, partial_args, keywords = unwrap(function)
    if partial_args or keywords:
        return functools.partial(variant, *partial_args, **keywords)
    return variant


def name_of(function: Any) -> str:
    """What messages call a function."""
    inner = unwrap(function)[0]
    return str(getattr(inner, "__qualname__", None) or getattr(inner, "__name__", repr(inner)))

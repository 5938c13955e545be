"""Kernels that are Numba dispatchers.

They are compiled in the calling process, for exactly the types that the chunks have: so what does
not compile is known before anything runs, and workers receive machine code.
"""

from __future__ import annotations

import inspect
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numba
import numpy as np
from numba._dispatcher import compute_fingerprint
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from shmcompute.chunking import Arguments, Chunk, Constant, PaddedBlock, PaddedPart
from shmcompute.errors import KernelTypeError
from shmcompute.kernels.base import Kernel, Kinds, rewrap
from shmcompute.kernels.bounds import NamedIndexError
from shmcompute.kernels.native_plan import NativeCall, NeedsPython, native_call
from shmcompute.kernels.returned import may_be_own
from shmcompute.kernels.variants import bounded, nogil
from shmcompute.system.compiling import call_compiler


@dataclass(frozen=True, eq=False)
class NumbaKernel(Kernel):
    """A Numba dispatcher, or a `functools.partial` of one."""

    dispatcher: Dispatcher
    partial_args: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> Kinds:
        if PaddedPart in arguments.classes:
            from shmcompute.kernels import padding  # noqa: PLC0415  # 6 ms, for few programs

            padding.prepare()  # here once, so that workers find it compiled
        if PaddedBlock in arguments.classes:
            from shmcompute.kernels import padding_blocks  # noqa: PLC0415

            padding_blocks.prepare()
        checked, keywords = _checked.setdefault(self.dispatcher, set()), self._keyword_types()
        samples, found = arguments.samples(chunks), set()
        for sample in samples:
            found.add(types := self._types(sample))
            if (types, *keywords.items()) not in checked:
                self._check_given(sample)
                self._check_returned(types, keywords, self._compile(types, keywords))
                checked.add((types, *keywords.items()))
        return Kinds(frozenset(found), fingerprints(samples))

    def __call__(self, args: list[Any]) -> None:
        try:
            super().__call__(args)
        except NamedIndexError as error:  # its own kind would not pickle, and says no more
            raise IndexError(str(error)).with_traceback(error.__traceback__) from None

    def returned(self, arguments: Arguments, chunks: Sequence[Chunk]) -> set[Any]:
        """The types that it returns for such chunks; None where that is known when it runs."""
        known, keywords = _returned.setdefault(self.dispatcher, {}), self._keyword_types()
        found = set()
        for sample in arguments.samples(chunks):
            self._check_given(sample)
            types = self._types(sample)
            if (types, *keywords.items()) not in known:
                signature = self._compile(types, keywords)
                returned = None if signature is None else signature.return_type
                known[types, *keywords.items()] = returned
            found.add(known[types, *keywords.items()])
        return found

    def threaded(self) -> Kernel:
        return self._with(nogil(self.dispatcher))

    def bounded(self) -> Kernel:
        return self._with(bounded(self.dispatcher))

    def _with(self, variant: Dispatcher) -> Kernel:
        if variant is self.dispatcher:
            return self
        return replace(self, function=rewrap(self.function, variant), dispatcher=variant)

    def native(
        self, arguments: Arguments, chunks: Sequence[Chunk], kinds: Kinds | None = None
    ) -> NativeCall | NeedsPython:
        if self.keywords:
            listed = ", ".join(f"{name}=" for name in self.keywords)
            return NeedsPython(f"its partial passes {listed}, and machine code knows no keywords")
        given = [Constant(value) for value in self.partial_args]
        bound = replace(arguments, bound=(*given, *arguments.bound))
        # A worker was told of no types, only of arrays.
        types = set(map(self._types, arguments.samples(chunks))) if kinds is None else kinds.types
        # There it asks the compiler for several things; the way there is gone once.
        return call_compiler(lambda: native_call(self.dispatcher, bound, chunks, types, len(given)))

    def _check_given(self, sample: Sequence[Any]) -> None:
        """Raise KernelTypeError if it does not take that many arguments."""
        given, code = [*self.partial_args, *sample], self.dispatcher.py_func.__code__
        if self.keywords or (code.co_argcount, code.co_kwonlyargcount) != (len(given), 0):
            self.check_arity(inspect.signature(self.dispatcher.py_func), given, self.keywords)

    def _types(self, sample: Sequence[Any]) -> tuple[Any, ...]:
        given = [*self.partial_args, *sample]
        return tuple(self._typeof(i, arg) for i, arg in enumerate(given))

    def _keyword_types(self) -> dict[str, Any]:
        return {key: self._typeof(key, value) for key, value in self.keywords.items()}

    def _typeof(self, position: int | str, value: Any) -> Any:
        try:
            return numba.typeof(value)
        except (ValueError, NumbaError) as error:
            raise KernelTypeError(
                f"kernel {self.name}: Numba does not know the type of argument {position} "
                f"({_describe(value)}): {error}"
            ) from error

    def _signature(self, types: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The signature of the version for these types, which is compiled if there is none."""
        try:
            with global_compiler_lock:  # a pool may be starting in another thread
                template, _, folded, named = self.dispatcher.get_call_template(types, keywords)
                return template(self.dispatcher.typingctx).apply(folded, named)
        except Exception as error:  # compiling runs any code, and not all is Numba's errors
            _forget_frames(error)
            raise KernelTypeError(
                f"kernel {self.name} does not compile for {_listed(types)}: {_uncoloured(error)}"
            ) from error

    def _compile(self, types: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """The signature of the version for these types; None if object mode finds out later."""
        signature = call_compiler(partial(self._signature, types, keywords))
        if signature is None and any(
            getattr(version, "objectmode", False) for version in self.dispatcher.overloads.values()
        ):
            return None  # what it returns is known only when it runs
        if signature is None:
            compiled = "; ".join(map(str, self.dispatcher.nopython_signatures))
            raise KernelTypeError(
                f"kernel {self.name} has no version for {_listed(types)}; it was compiled for "
                f"{compiled}"
            )
        return signature

    def _check_returned(
        self, types: tuple[Any, ...], keywords: dict[str, Any], signature: Any
    ) -> None:
        """Raise KernelTypeError if it returns what it has made."""
        if signature is None:
            return
        returned, given = signature.return_type, (*types, *keywords.values())
        if returned != numba.types.none and not may_be_own(
            returned, given, self.dispatcher.py_func
        ):
            raise KernelTypeError(
                f"kernel {self.name} returns {returned} of its own making: a kernel must write in "
                "place and return nothing, or an array that it was given"
            )


def fingerprints(samples: Sequence[Sequence[Any]]) -> frozenset[Any] | None:
    """What is equal for arguments of the same Numba types, and found in a fraction of the time.

    None if that way does not know one of them.
    """
    try:
        return frozenset(tuple(map(compute_fingerprint, sample)) for sample in samples)
    except (NotImplementedError, ValueError):
        return None


# The argument types that each dispatcher takes: asking Numba again would cost more than a call.
_checked: weakref.WeakKeyDictionary[Dispatcher, set[tuple[Any, ...]]] = weakref.WeakKeyDictionary()

_returned: weakref.WeakKeyDictionary[Dispatcher, dict[tuple[Any, ...], Any]]
_returned = weakref.WeakKeyDictionary()  # and what it returns for them


def _listed(types: Sequence[Any]) -> str:
    return f"({', '.join(map(str, types))})"


def _forget_frames(error: BaseException | None) -> None:
    """Numba keeps the errors of failed compilations; their frames would keep our arrays mapped."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _uncoloured(error: Exception) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an ndarray of dtype {value.dtype}"
    return type(value).__name__

"""Kernels: one callable type out of three kinds, checked before anything runs.

A kernel writes in place and returns nothing. Numba dispatchers are compiled here, in the calling
process, for exactly the types that the chunks have, so what does not compile is known before
dispatch; ufuncs are tried on a chunk of no elements; of Python functions the arity is checked.
"""

from __future__ import annotations

import functools
import inspect
import re
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numba
import numpy as np
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.np.ufunc.dufunc import DUFunc
from numba.np.ufunc.gufunc import GUFunc

from shmcompute.arguments import Arguments, Part, Same
from shmcompute.errors import KernelTypeError
from shmcompute.frame import Call, native_call
from shmcompute.partition import Chunk
from shmcompute.twin import bounded, bounded_gufunc, nogil

UFUNCS = (np.ufunc, DUFunc, GUFunc)


class Kernel(Protocol):
    """What a plan calls for each chunk."""

    @property
    def function(self) -> Callable[..., Any]:
        """What the caller gave."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> None:
        """Raise KernelTypeError if it does not take what these chunks would call it with."""

    def __call__(self, args: list[Any]) -> None:
        """Run it on one chunk."""

    def threaded(self) -> Kernel:
        """The same kernel, as it should be for several threads of one process."""

    def bounded(self) -> Kernel:
        """The same kernel, with an IndexError for each index out of bounds, where it can be had."""

    def native(self, arguments: Arguments, chunks: Sequence[Chunk]) -> Call | None:
        """The same call without Python, if it can be had."""


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
    inner, before, keywords = _unwrapped(function)
    if isinstance(inner, Dispatcher):
        return NumbaKernel(function, inner, before, keywords)
    if isinstance(inner, UFUNCS):
        return UfuncKernel(function, inner, *_outputs(inner, len(before), arguments), before)
    return PythonKernel(function)


def _unwrapped(function: Any) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """What a (nested) partial calls, and what it passes; `partial` flattens itself."""
    if isinstance(function, functools.partial):
        return function.func, function.args, function.keywords
    return function, (), {}


def _instead(function: Any, twin: Any) -> Any:
    """A function, or a partial of one, with `twin` called in its place."""
    _, before, keywords = _unwrapped(function)
    return functools.partial(twin, *before, **keywords) if before or keywords else twin


def _name(function: Any) -> str:
    inner = _unwrapped(function)[0]
    return str(getattr(inner, "__qualname__", None) or getattr(inner, "__name__", repr(inner)))


@dataclass(frozen=True, eq=False)
class PythonKernel:
    """Any callable."""

    function: Callable[..., Any]

    @property
    def name(self) -> str:
        return _name(self.function)

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> None:
        try:
            signature = inspect.signature(self.function)
        except (TypeError, ValueError):
            return  # a C function that does not tell
        _check_arity(self.name, signature, arguments.at((0, 0)), {})

    def __call__(self, args: list[Any]) -> None:
        _check_result(self.name, self.function(*args))

    def threaded(self) -> Kernel:
        return self

    def bounded(self) -> Kernel:
        return self

    def native(self, arguments: Arguments, chunks: Sequence[Chunk]) -> Call | None:
        return None


@dataclass(frozen=True, eq=False)
class NumbaKernel:
    """A Numba dispatcher, or a `functools.partial` of one."""

    function: Callable[..., Any]
    dispatcher: Dispatcher
    before: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return _name(self.function)

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> None:
        checked = _checked.setdefault(self.dispatcher, set())
        keywords = {key: self._typeof(key, value) for key, value in self.keywords.items()}
        for sample in arguments.samples(chunks):
            given = [*self.before, *sample]
            types = tuple(self._typeof(i, arg) for i, arg in enumerate(given))
            if (types, *keywords.items()) not in checked:
                signature = inspect.signature(self.dispatcher.py_func)
                _check_arity(self.name, signature, given, self.keywords)
                self._compile(types, keywords)
                checked.add((types, *keywords.items()))

    def __call__(self, args: list[Any]) -> None:
        _check_result(self.name, self.function(*args))

    def threaded(self) -> Kernel:
        return self._as(nogil(self.dispatcher))

    def bounded(self) -> Kernel:
        return self._as(bounded(self.dispatcher))

    def _as(self, twin: Dispatcher) -> Kernel:
        if twin is self.dispatcher:
            return self
        return replace(self, function=_instead(self.function, twin), dispatcher=twin)

    def native(self, arguments: Arguments, chunks: Sequence[Chunk]) -> Call | None:
        if self.keywords:
            return None
        given = [Same(value) for value in self.before]
        bound = replace(arguments, bound=(*given, *arguments.bound))
        return native_call(self.dispatcher, bound, chunks)

    def _typeof(self, position: int | str, value: Any) -> Any:
        try:
            return numba.typeof(value)
        except (ValueError, NumbaError) as error:
            raise KernelTypeError(
                f"kernel {self.name}: Numba does not know the type of argument {position} "
                f"({_told(value)}): {error}"
            ) from error

    def _compile(self, types: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Compile for these types, or find the compiled version that takes them."""
        try:
            with global_compiler_lock:  # a pool may be starting in another thread
                template, _, folded, named = self.dispatcher.get_call_template(types, keywords)
                typing = template(self.dispatcher.typingctx)
                signature = typing.apply(folded, named)
        except (NumbaError, TypeError, ValueError, NotImplementedError) as error:
            _forget_frames(error)
            raise KernelTypeError(
                f"kernel {self.name} does not compile for {_listed(types)}: {_uncoloured(error)}"
            ) from error
        if signature is None and any(
            getattr(version, "objectmode", False) for version in self.dispatcher.overloads.values()
        ):
            return  # what it does is known only when it runs
        if signature is None:
            known = "; ".join(map(str, self.dispatcher.nopython_signatures))
            raise KernelTypeError(
                f"kernel {self.name} has no version for {_listed(types)}; it was compiled for "
                f"{known}"
            )
        if signature.return_type != numba.types.none:
            raise KernelTypeError(
                f"kernel {self.name} returns {signature.return_type}: a kernel must write in "
                "place and return nothing"
            )


@dataclass(frozen=True, eq=False)
class UfuncKernel:
    """A NumPy or Numba ufunc, called with ``out=`` the first split argument."""

    function: Any
    ufunc: Any
    outputs: tuple[int, ...]  # positions of the arguments that are written
    inputs: tuple[int, ...]
    before: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        return _name(self.function)

    def check(self, arguments: Arguments, chunks: Sequence[Chunk]) -> None:
        args = arguments.at((0, 0))
        given = [*self.before, *(args[i] for i in self.inputs)]
        try:
            self._resolve([*given, *(args[i] for i in self.outputs)])
        except (TypeError, ValueError, NumbaError) as error:
            raise KernelTypeError(
                f"ufunc {self.name} does not take these arguments: {error}"
            ) from error

    def _resolve(self, operands: list[Any]) -> None:
        """Raise if there is no loop for operands of these types."""
        ufunc = getattr(self.ufunc, "ufunc", self.ufunc)  # Numba wraps its own
        if isinstance(ufunc, np.ufunc) and ufunc.types:
            ufunc.resolve_dtypes(tuple(map(_kind, operands)))
        elif self.ufunc.signature is None:
            # Not compiled for anything yet: have it compile, on arrays of no elements.
            empty = [np.empty(0, x.dtype) if isinstance(x, np.ndarray) else x for x in operands]
            self.ufunc(*empty[: self.ufunc.nin], out=tuple(empty[self.ufunc.nin :]))

    def __call__(self, args: list[Any]) -> None:
        given = [args[i] for i in self.inputs]
        if self.outputs:
            self.function(*given, out=tuple(args[i] for i in self.outputs))
        else:
            self.function(*given)  # a gufunc that has none writes its arguments

    def threaded(self) -> Kernel:
        return self

    def bounded(self) -> Kernel:
        if not isinstance(self.ufunc, GUFunc):
            return self
        twin = bounded_gufunc(self.ufunc)
        return replace(self, function=_instead(self.function, twin), ufunc=twin)

    def native(self, arguments: Arguments, chunks: Sequence[Chunk]) -> Call | None:
        return None


def _kind(operand: Any) -> Any:
    """What stands for an operand where only types matter."""
    return operand.dtype if isinstance(operand, (np.ndarray, np.generic)) else type(operand)


def _outputs(
    ufunc: Any, before: int, arguments: Arguments
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which arguments a ufunc writes, and which it reads beside those it was given before."""
    count = len(arguments.bound)
    nin = ufunc.nin - before
    written = [i for i, arg in enumerate(arguments.bound) if isinstance(arg, Part) and arg.writes]
    outputs = tuple(written[: ufunc.nout])
    separate = count == nin + ufunc.nout
    inputs = tuple(i for i in range(count) if not (separate and i in outputs))
    if len(outputs) < ufunc.nout or len(inputs) != nin:
        raise KernelTypeError(
            f"ufunc {_name(ufunc)} takes {nin} inputs and {ufunc.nout} outputs, got {count} "
            f"arguments of which {len(written)} are split for writing; pass the inputs (the first "
            "split argument is then overwritten), or the outputs and the inputs"
        )
    return outputs, inputs


def _check_arity(
    name: str, signature: inspect.Signature, args: list[Any], keywords: dict[str, Any]
) -> None:
    try:
        signature.bind(*args, **keywords)
    except TypeError as error:
        raise KernelTypeError(
            f"kernel {name}{signature} was given {len(args)} arguments: {error}"
        ) from None


# What each dispatcher is known to take: asking Numba again would cost more than a dispatch.
_checked: weakref.WeakKeyDictionary[Dispatcher, set[tuple[Any, ...]]] = weakref.WeakKeyDictionary()


def _check_result(name: str, result: Any) -> None:
    if result is not None:
        raise KernelTypeError(
            f"kernel {name} returned {type(result).__name__}: a kernel must write in place "
            "(x[:] = ...) and return nothing"
        )


def _listed(types: Sequence[Any]) -> str:
    return f"({', '.join(map(str, types))})"


def _forget_frames(error: BaseException | None) -> None:
    """Numba keeps the errors of failed compilations; their frames would keep our arrays mapped."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _uncoloured(error: Exception) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()


def _told(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an ndarray of dtype {value.dtype}"
    return type(value).__name__

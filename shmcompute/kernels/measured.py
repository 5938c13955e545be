"""Kernels that return a number, as kernels that write it, or drop it, and return nothing."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.errors import KernelTypeError
from shmcompute.kernels.base import name_of, rewrap, unwrap
from shmcompute.typing import Array

# By the number of arguments, and whether the result is kept.
_made: weakref.WeakKeyDictionary[Dispatcher, dict[tuple[int, bool], Dispatcher]] = (
    weakref.WeakKeyDictionary()
)


def measured(function: Any, arguments: int) -> Any:
    """The kernel that takes one argument more, an array of no dimensions, for the number."""
    return _wrapped(function, arguments, keeps=True)


def ignoring(function: Any, arguments: int) -> Any:
    """The kernel that drops what it returns."""
    return _wrapped(function, arguments, keeps=False)


def _wrapped(function: Any, arguments: int, *, keeps: bool) -> Any:
    inner, partial_args, keywords = unwrap(function)
    if not isinstance(inner, Dispatcher) or keywords:
        return _Measured(function) if keeps else _Ignoring(function)
    made = _made.setdefault(inner, {})
    key = len(partial_args) + arguments, keeps
    if key not in made:
        made[key] = _compiled(inner, *key)
    return rewrap(function, made[key])


def _compiled(kernel: Dispatcher, arguments: int, keeps: bool) -> Dispatcher:
    """A jitted function of just so many arguments: machine code calls no other kind."""
    names = [f"argument{number}" for number in range(arguments)]
    call = f"kernel({', '.join(names)})"
    takes, does = ([*names, "out"], f"out[()] = {call}") if keeps else (names, call)
    scope: dict[str, Any] = {"kernel": kernel}
    exec(f"def call({', '.join(takes)}):\n    {does}\n", scope)  # noqa: S102  # of our own text
    function = scope["call"]
    function.__name__ = kernel.py_func.__name__
    function.__qualname__ = kernel.py_func.__qualname__
    options = {"nogil", "fastmath", "boundscheck", "error_model", "parallel"}
    given = {name: value for name, value in kernel.targetoptions.items() if name in options}
    made: Dispatcher = numba.njit(**{**given, "parallel": False})(function)
    return made


@dataclass(frozen=True)
class _Measured:
    """A Python kernel whose number is kept."""

    function: Any

    def __call__(self, *args: Any) -> None:
        *given, out = args
        out[()] = _number(self.function(*given), self.function)

    @property
    def __name__(self) -> str:
        return name_of(self.function)


@dataclass(frozen=True)
class _Ignoring:
    """A Python kernel whose number nobody wants."""

    function: Any

    def __call__(self, *args: Any) -> None:
        self.function(*args)

    @property
    def __name__(self) -> str:
        return name_of(self.function)


def _number(value: Any, function: Any) -> Any:
    if isinstance(value, (Real, np.bool_)) or (isinstance(value, np.ndarray) and not value.ndim):
        return value
    raise KernelTypeError(
        f"kernel {name_of(function)} returned {type(value).__name__}: with until= it must return "
        "a real number for its chunk, such as how far it has moved anything"
    )


def combined(numbers: Array, combine: Any) -> Any:
    """One number of several, in their order."""
    total = numbers[0]
    for number in numbers[1:]:
        total = combine(total, number)
    return total

"""`Captures`: the arrays that a function brings along, and whether it writes them with care.

A kernel reaches more than its arguments: what a `functools.partial` brings, what stands in its
closure, its module's globals, its object, or a container that it is passed. Each chunk sees all of
that. Numba freezes what jitted functions find that way, so of these only their partials count.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.arrays import SharedArray
from shmcompute.typing import Array

DEPTH = 8  # of containers in objects in containers
# Who calls one of these lets others wait, or writes in one step.
CAREFUL = frozenset(
    {"atomic_add", "atomic_max", "atomic_min", "compare_exchange", "lock", "Lock", "acquire"}
)
_OTHERS = {"shmcompute", "numpy", "numba"} | sys.stdlib_module_names - {"__main__"}
_LEAVES = (type, ModuleType, np.ufunc, np.generic, str, bytes, int, float, complex, type(None))


class Captured(NamedTuple):
    """An array, and where it was found."""

    where: str
    array: Array


@dataclass
class Captures:
    """What was found: writeable arrays, and the names that code refers to."""

    arrays: list[Captured] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    _seen: dict[int, Any] = field(default_factory=dict)  # by id; kept, so that ids stay theirs
    _home: str | None = None  # the module of the first function: others' are not looked into

    @property
    def careful(self) -> bool:
        """Whether the code knows that others write, too, as far as its names tell."""
        return not CAREFUL.isdisjoint(self.names)

    def look(self, value: Any, where: str, depth: int = 0) -> None:
        """Note what can be reached from a value."""
        if isinstance(value, _LEAVES) or id(value) in self._seen or depth > DEPTH:
            return
        self._seen[id(value)] = value
        if isinstance(value, (SharedArray, np.ndarray)):
            self._note(value, where)
            return
        self.names.add(getattr(value, "__name__", ""))
        for place, inner in self._parts(value):
            self.look(inner, place or where, depth + 1)

    def _note(self, value: SharedArray | Array, where: str) -> None:
        if isinstance(value, SharedArray) and value.closed:
            return
        array: Array = value.array if isinstance(value, SharedArray) else value
        if array.flags.writeable and array.nbytes and not array.dtype.hasobject:
            self.arrays.append(Captured(where, array))

    def _parts(self, value: Any) -> Iterator[tuple[str, Any]]:
        """What a value holds, with words for where; no words: where the value itself is."""
        if isinstance(value, functools.partial):
            yield "", value.func
            for position, arg in enumerate(value.args):
                yield f"argument {position} of its partial", arg
            for name, arg in value.keywords.items():
                yield f"argument {name} of its partial", arg
        elif isinstance(value, MethodType):
            yield from (("", value.__func__), ("", value.__self__))
        elif isinstance(value, Dispatcher):
            self.names.update(_names(value.py_func.__code__))
            yield from ((place, it) for place, it in _variables(value.py_func) if _is_code(it))
        elif isinstance(value, FunctionType):
            self._home = self._home or value.__module__
            if value.__module__ == self._home:
                self.names.update(_names(value.__code__))
                yield from _variables(value)
        else:
            yield from _contents(value)


def _contents(value: Any) -> Iterator[tuple[str, Any]]:
    """What a container or an object of the user's holds."""
    if isinstance(value, dict):
        yield from (("", item) for item in [*value, *value.values()])
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from (("", item) for item in value)
    elif _is_users(value) and isinstance(attributes := getattr(value, "__dict__", 0), dict):
        yield "", getattr(type(value), "__call__", None)  # noqa: B004  # the function, to look into
        yield from ((f"attribute {name}", item) for name, item in attributes.items())


def _is_users(value: Any) -> bool:
    """Whether an object is of a class whose attributes are the user's: no pool, logger, lock."""
    package = type(value).__module__.partition(".")[0]
    return package not in _OTHERS or isinstance(value, SimpleNamespace)


def _is_code(value: Any) -> bool:
    return isinstance(value, (Dispatcher, FunctionType))


def _variables(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function's code may refer to: closure, globals, defaults."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"{name} of its closure", cell.cell_contents
        except ValueError:  # not filled yet
            continue
    for name in _names(function.__code__):
        yield f"the global {name}", function.__globals__.get(name)
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    yield from (("a default of its parameters", value) for value in defaults)


def _names(code: CodeType) -> set[str]:
    """The names of globals and attributes in code, and in that of functions within it."""
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)

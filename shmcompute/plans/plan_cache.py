"""`PlanCache`: a pool's latest plans, so that a call like an earlier one is not built again."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import FunctionType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.arrays import SharedArray
from shmcompute.chunking import (
    ARRAY_MARKERS,
    VALUES,
    ChunkMarker,
    PerChunk,
    Scratch,
    Values,
    is_number,
)
from shmcompute.plans.build import Options
from shmcompute.plans.plan import Plan

KEPT = 64  # plans

_CONSTANTS = (ChunkMarker, Scratch, PerChunk)  # markers that refer to no array


@dataclass(frozen=True, eq=False)
class _Entry:
    plan: Plan
    versions: tuple[tuple[dict[Any, Any], Any], ...]  # see `_versions`
    arrays: list[int]  # their id()


class PlanCache:
    """Plans by the calls that they were built for; see `call_key`.

    A plan holds views, and views keep memory mapped. So the cache drops a plan when any of its
    arrays is closed or collected, and itself refers to no `SharedArray`, only to ids. An id can't
    be that of another array by then: its entry goes before the array does.
    """

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        self._keys: dict[int, set[Hashable]] = {}  # by id() of the array

    def find(self, key: Hashable | None) -> Plan | None:
        """The plan of that key, unless one of its kernels was recompiled since."""
        try:
            entry = self._entries.get(key)
        except TypeError:  # not hashable: an option of a wrong type, which `build_plan` refuses
            return None
        if entry is None:
            return None
        for versions, first in entry.versions:
            if next(iter(versions.values()), None) is not first:
                return None
        return entry.plan

    def keep(self, key: Hashable | None, plan: Plan, arrays: Sequence[SharedArray]) -> None:
        """Keep a plan while its arrays are open and it is among the latest."""
        if key is None:
            return
        for oldest in list(self._entries)[: 1 - KEPT]:
            self._drop(oldest)
        self._entries[key] = _Entry(plan, _versions(plan), [id(array) for array in arrays])
        for array in arrays:
            if id(array) not in self._keys:  # an empty set: its callback is registered, too
                array.when_closed(_forget, weakref.ref(self), id(array))
            self._keys.setdefault(id(array), set()).add(key)

    def forget(self, array: int) -> None:
        """Drop the plans of an array, by its id."""
        # Also called within garbage collection, in any thread: so no lock, only single operations
        # on dicts, each of which finds what it looks for or does nothing.
        for key in self._keys.pop(array, ()):
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        entry = self._entries.pop(key, None)
        for array in entry.arrays if entry is not None else ():
            self._keys.get(array, set()).discard(key)


def _forget(cache: weakref.ref[PlanCache], array: int) -> None:
    if (alive := cache()) is not None:
        alive.forget(array)


def _versions(plan: Plan) -> tuple[tuple[dict[Any, Any], Any], ...]:
    """The versions of each jitted kernel, and the first, which ``recompile()`` replaces."""
    functions = [link.kernel.function for link in plan.links]
    overloads = [kernel.overloads for kernel in functions if isinstance(kernel, Dispatcher)]
    return tuple((versions, next(iter(versions.values()), None)) for versions in overloads)


def call_key(
    kernel: Any, args: tuple[Any, ...], options: Options
) -> tuple[Hashable | None, Values]:
    """The key that calls share if one plan serves them, and the numbers in which they differ.

    Returns
    -------
    key : hashable or None
        None for a call that needs a new plan each time: a Python function that is pickled by value
        may change with its globals and closure, a plain array with its content.
    values : tuple of numbers
    """
    values = tuple(filter(is_number, args))
    constant = isinstance(kernel, (Dispatcher, np.ufunc)) or is_imported(kernel)
    if not constant or len(values) > VALUES:
        return None, values
    parts: list[Hashable] = [kernel, options, *map(type, options)]
    for arg in args:
        kind: Any = type(arg)
        if kind is SharedArray:
            parts.append(id(arg))
        elif kind in _CONSTANTS:
            parts.append(arg)
        elif kind in ARRAY_MARKERS and type(arg.value) is SharedArray:
            parts.append((kind, id(arg.value), getattr(arg, "axis", None)))
        elif is_number(arg):
            parts.append(kind)
        else:
            return None, values
    return tuple(parts), values


def is_imported(function: Any) -> bool:
    """Whether it is a Python function that workers import, so that it never changes there.

    As cloudpickle decides: its module has it under its name, and that module is neither
    `__main__`, which differs between processes, nor registered to be pickled by value.
    """
    if not isinstance(function, FunctionType):
        return False
    home = function.__module__
    if home in (None, "__main__", "__mp_main__") or home not in sys.modules:
        return False
    pickler = sys.modules.get("cloudpickle")  # not loaded, so nobody has registered anything
    by_value = pickler.list_registry_pickle_by_value() if pickler is not None else ()
    if any(f"{home}.".startswith(f"{name}.") for name in by_value):
        return False
    try:
        return attrgetter(function.__qualname__)(sys.modules[home]) is function
    except AttributeError:
        return False

"""`PlanCache`: a pool's latest plans, so that a call like an earlier one is not built again.

The file is long because keys are told part by part, and what a key leaves out is a wrong number.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from types import FunctionType
from typing import Any, Protocol

import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.arrays import SharedArray, holder_of
from shmcompute.chunking import (
    ARRAY_MARKERS,
    VALUES,
    ChunkMarker,
    Constant,
    Halo,
    OffsetFrom,
    PerChunk,
    Scratch,
    Values,
    is_number,
    lent_array,
    number_key,
)
from shmcompute.kernels import name_of
from shmcompute.plans.build import Calls, Given, arrays_of, build_plan, calls_of, rebuild_plan
from shmcompute.plans.options import Options, Target
from shmcompute.plans.plan import Plan
from shmcompute.plans.strict_keys import axis_key, dtype_key
from shmcompute.system import recording
from shmcompute.system.addresses import address
from shmcompute.typing import Array

KEPT = 1024  # plans,
FORMS = 256  # and forms of plans

_CONSTANTS = (ChunkMarker, Scratch, PerChunk)  # markers that refer to no array


def _reader_of(marker: type[Any]) -> Callable[[Any], Hashable]:
    """What reads from a marker how its array is cut."""
    if hasattr(marker, "key"):
        return lambda arg: (axis_key(arg.axis), arg.key)
    return (lambda arg: axis_key(arg.axis)) if hasattr(marker, "axis") else type


_HOW = {kind: _reader_of(kind) for kind in ARRAY_MARKERS}


class NotedPlan(Protocol):
    """A plan, and what was noted of it by who keeps it."""

    @property
    def plan(self) -> Plan: ...
    @property
    def note(self) -> Any: ...


@dataclass(frozen=True, eq=False)
class _Entry:
    plan: Plan
    versions: tuple[tuple[dict[Any, Any], Any], ...]  # see `Plan.versions`
    arrays: list[int]  # their id()
    note: Any = None  # of who keeps it


class PlanCache:
    """Plans by the calls that they were built for (`call_key`), and their forms (`_form_key`).

    A plan holds views, and views keep memory mapped. So the cache drops a plan when any of its
    arrays is closed or collected, and itself refers to no `SharedArray`, only to ids. An id can't
    be that of another array by then: its entry goes before the array does.
    """

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}
        self._keys: dict[int, set[Hashable]] = {}  # by id() of the array
        self._forms: dict[Hashable, _Entry] = {}

    def find(self, key: Hashable | None) -> Plan | None:
        """The plan of that key, unless one of its kernels was recompiled since."""
        entry = _found(self._entries, key)
        return None if entry is None else entry.plan

    def find_noted(self, key: Hashable | None) -> NotedPlan | None:
        """The same, with the note that it was kept with."""
        return _found(self._entries, key)

    def keep(self, key: Hashable | None, plan: Plan, given: Given, note: Any = None) -> None:
        """Keep a plan while the arrays that it was given are open and it is among the latest.

        One with a view of what is no open `SharedArray` is not kept: nobody would tell its end.
        """
        if key is None:
            return
        holders = _holders(given.plain)
        if holders is None:
            return
        arrays = [*given.shared, *holders]
        while len(self._entries) >= KEPT:
            self._drop(next(iter(self._entries)))
        self._entries[key] = _Entry(plan, plan.versions, [id(array) for array in arrays], note)
        for array in arrays:
            if id(array) not in self._keys:  # an empty set: its callback is registered, too
                array.when_closed(_forget, weakref.ref(self), id(array))
            self._keys.setdefault(id(array), set()).add(key)

    def build(
        self,
        kernel: Any,
        args: tuple[Any, ...],
        options: Options,
        target: Target,
        key: Hashable | None,
    ) -> Plan:
        """The plan of a call, from a form that is known if there is one, and kept for its like."""
        same = _form_key(kernel, args, options._replace(extent=None))
        form = _found(self._forms, same)
        built = None if form is None else rebuild_plan(form.plan, args, options, target)
        calls = calls_of(kernel, args)
        given = arrays_of(calls)
        if built is None:
            built = _built(calls, options, target)
            self._keep_form(same, built)
        if options.extent is None or not (options.retries or options.schedule == "guided"):
            self.keep(key, built, given)
        return built

    def _keep_form(self, key: Hashable | None, plan: Plan) -> None:
        # A shared array has no room in the form of a call that was given a plain one.
        if key is not None and Constant not in plan.links[0].arguments.classes:
            while len(self._forms) >= FORMS:
                self._forms.pop(next(iter(self._forms)), None)
            self._forms[key] = _Entry(plan.detached(), plan.versions, [])

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


def _built(calls: Calls, options: Options, target: Target) -> Plan:
    """What `build_plan` makes; who traces sees how long that takes."""
    if (recorder := recording.recorder) is None:
        return build_plan(calls, options, target)
    with recorder.span("plan", " + ".join(name_of(link[0]) for link in calls)):
        return build_plan(calls, options, target)


def _holders(views: Sequence[Array]) -> list[SharedArray] | None:
    """The arrays that these are views of; None where one is a view of no open `SharedArray`."""
    holders = [holder for view in views if (holder := holder_of(view)) is not None]
    return holders if len(holders) == len(views) else None


def _forget(cache: weakref.ref[PlanCache], array: int) -> None:
    if (alive := cache()) is not None:
        alive.forget(array)


def _found(entries: dict[Hashable, _Entry], key: Hashable | None) -> _Entry | None:
    try:
        entry = entries.get(key)
    except TypeError:  # not hashable: an option of a wrong type, which `build_plan` refuses
        return None
    if entry is not None:
        for versions, first in entry.versions:  # a kernel's may have been compiled anew since
            if next(iter(dict.values(versions)), None) is not first:
                return None
    return entry


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
    if type(kernel) is list:
        return chain_key(calls_of(kernel, args), options)
    values: list[Any] = []
    parts: list[Any] = [*_kernel_key(kernel), options, *map(type, options)]
    is_known = parts[0] is not None
    if type(options.axis) is tuple:
        parts += _pairs_key(options)
    for arg in args:
        if type(arg) is SharedArray:
            parts.append(_shared_key(arg))
        elif type(arg) is ChunkMarker:
            parts.append(arg)
        elif is_number(arg) or type(arg) is OffsetFrom:
            values.append(arg.base if type(arg) is OffsetFrom else arg)
            parts.append(type(arg))
        else:
            parts.append(part := _part_key(arg))
            is_known = is_known and part is not None
    key = tuple(parts) if is_known and len(values) <= VALUES else None
    return key, tuple(values)


def chain_key(calls: Calls, options: Options) -> tuple[Hashable | None, Values]:
    """The same for a chain, of kernels with arguments of their own."""
    keys = [call_key(kernel, tuple(args), options) for kernel, *args in calls]
    values = tuple(value for _, values in keys for value in values)
    if any(key is None for key, _ in keys) or len(values) > VALUES:
        return None, values
    return ("chain", *(key for key, _ in keys)), values


def why_bound_anew(calls: Calls, views: Sequence[Array]) -> str | None:
    """Why no two calls like this share a plan, whose ndarrays are `views`; None if they do."""
    for kernel, *args in calls:
        if _kernel_key(kernel)[0] is None:
            return "its kernel is not from an imported module, so it may change between calls"
        for position, arg in enumerate(args):
            if not is_number(arg) and type(arg) is not OffsetFrom and _part_key(arg) is None:
                kind = type(arg).__name__
                return f"argument {position}, of type {kind}, may change between calls"
    if sum(is_number(arg) for _, *args in calls for arg in args) > VALUES:
        return f"it has more than {VALUES} numbers among its arguments"
    if _holders(views) is None:
        return "it has a plain array, or a view of what is no open SharedArray"
    return None


def _shared_key(array: SharedArray) -> Hashable:
    """What is the same for a shared array while nobody changes how `array.array` is seen.

    Setting that view's shape, dtype or ``flags.writeable`` takes effect in the next call.
    """
    view = array._array  # not `.array`, which costs as much as the rest, and may raise
    if view is None:
        return None
    return id(array), view.shape, view.dtype, view.flags.writeable


def _part_key(arg: Any) -> Hashable | None:
    """What is the same for arguments that are one array, cut alike."""
    kind: Any = type(arg)
    if kind is SharedArray:
        return _shared_key(arg)
    if kind is np.ndarray:
        dtype = arg.dtype if arg.dtype.names is None else dtype_key(arg.dtype)
        return address(arg), arg.shape, arg.strides, dtype, arg.flags.writeable
    if kind in _HOW:
        inner = None if type(arg.value) in ARRAY_MARKERS else _part_key(arg.value)
        return None if inner is None else (kind, inner, _HOW[kind](arg))
    if kind in _CONSTANTS:
        return _constant_key(arg)
    view = lent_array(arg)
    return None if type(view) is not np.ndarray else _part_key(view)


def _constant_key(marker: Any) -> Hashable:
    key: Hashable = marker
    return key if type(marker) is ChunkMarker else (key, dtype_key(marker.dtype))


def _pairs_key(options: Options) -> tuple[Hashable, ...]:
    """What is the same for the pairs of a call along two axes that are as valid as each other."""
    return axis_key(options.axis), axis_key(options.chunksize)


def _kernel_key(kernel: Any) -> tuple[Hashable | None, ...]:
    """What is the same for kernels that one plan serves; None for one that may change."""
    if isinstance(kernel, (Dispatcher, np.ufunc)) or is_imported(kernel):
        return (kernel,)
    if type(kernel) is partial and not kernel.keywords and isinstance(kernel.func, Dispatcher):
        held = [_part_key(arg) or (is_number(arg) and number_key(arg)) for arg in kernel.args]
        return (kernel.func, *held) if all(held) else (None,)
    return (None,)


def _form_key(kernel: Any, args: tuple[Any, ...], options: Options) -> Hashable | None:
    """The key that calls share whose plans are of one form, where they can tell by little.

    Equal keys do not suffice: how arrays lie in memory is to be compared, too.
    """
    simple = options.schedule != "guided" and not options.retries
    if not (simple and isinstance(kernel, (Dispatcher, np.ufunc))):
        return None
    parts: list[Hashable] = [kernel, options, *map(type, options)]
    if type(options.axis) is tuple:
        parts += _pairs_key(options)
    for arg in args:
        part: Any = _outline_key(arg)
        if part is None and (is_number(arg) or type(arg) is OffsetFrom):
            part = type(arg)
        if part is None:
            return None
        parts.append(part)
    return tuple(parts)


def _outline_key(arg: Any) -> Hashable | None:
    """What is the same for arrays that one argument may be attached to."""
    kind: Any = type(arg)
    if kind in (SharedArray, np.ndarray):
        return dtype_key(arg.dtype), arg.ndim
    if kind is Halo and arg.boundary is not None:  # its copies are made for one shape
        return None
    if kind in _HOW and type(arg.value) in (SharedArray, np.ndarray):
        return kind, _outline_key(arg.value), _HOW[kind](arg)
    return _constant_key(arg) if kind in _CONSTANTS else None


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

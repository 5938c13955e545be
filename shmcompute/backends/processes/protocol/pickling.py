"""Pickles of plans and tasks, in which shared arrays and views are handles, and of exceptions.

By value (cloudpickle) go functions and classes that a worker can't import: those of ``__main__``,
of notebooks, lambdas, closures. An ndarray that looks into a segment goes as its handle, offset,
shape and strides, wherever in the arguments it stands.

The file is long because both directions stand side by side: what one packs, the other unpacks.
"""

from __future__ import annotations

import functools
import io
import marshal
import pickle
import sys
import traceback
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle
import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.arrays import SharedArray, receive
from shmcompute.backends.processes.protocol.messages import Failure, PackedPlan, Result, Task
from shmcompute.errors import KernelSerializationError, RemoteKernelError, ShmComputeError
from shmcompute.kernels import Kernel, NumbaKernel, reduce_dispatcher
from shmcompute.plans import Link, Plan
from shmcompute.storage import Handle, adopt, locate, map_handle, mapped
from shmcompute.system.call_context import CallContext
from shmcompute.system.reloads import renamed
from shmcompute.system.tracebacks import shorten
from shmcompute.tasks import Function, describe
from shmcompute.typing import Array

# A jitted kernel is what it was when Numba compiled it, so each set of versions is pickled once.
_kernels: weakref.WeakKeyDictionary[Any, tuple[tuple[int, ...], bytes, frozenset[Handle]]] = (
    weakref.WeakKeyDictionary()
)
# Tasks of one map have one function, which is pickled once.
_functions: weakref.WeakKeyDictionary[Function, tuple[bytes, frozenset[Handle]]] = (
    weakref.WeakKeyDictionary()
)

_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
_NONE: frozenset[Handle] = frozenset()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not typed
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        # In a child of multiprocessing the main module has this name, under which workers
        # could not import it: it goes by value, as __main__ does.
        main = sys.modules.get("__mp_main__")
        if main is not None and main.__name__ == "__mp_main__":
            cloudpickle.register_pickle_by_value(main)
        self.handles: set[Handle] = set()

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, SharedArray) and not value.closed:
            self.handles.add(value.segment.handle)
        elif isinstance(value, np.ndarray) and (reduced := reduce_view(value)) is not None:
            self.handles.add(reduced[1][0])
            return reduced
        elif isinstance(value, CodeType):
            # cloudpickle (3.1.3) forgets the file, by which tracebacks find the lines. Both ends
            # are of one Python. In this format equal code has equal bytes.
            with suppress(ValueError):
                code = marshal.dumps(value, 2)
                # Else it has constants that no compiler makes.
                if marshal.loads(code) == value:  # noqa: S302  # it was made a line above
                    return marshal.loads, (code,)
        elif isinstance(value, FunctionType) and renamed(value):
            return self._dynamic_function_reduce(value)  # by value
        elif isinstance(value, Dispatcher) and (sent := reduce_dispatcher(value)) is not None:
            return sent
        return super().reducer_override(value)


class _TaskPickler(_Pickler):
    """Sends by value what belongs to a module that is being imported.

    By name it would wait for the end of the import, which may wait for the task: tasks are pickled
    by a thread of their own.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self._by_value: list[ModuleType] = []

    def dump(self, value: Any) -> None:
        try:
            super().dump(value)
        finally:
            for module in self._by_value:
                cloudpickle.unregister_pickle_by_value(module)

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, (FunctionType, type)):
            module = sys.modules.get(value.__module__)
            if module is not None and _is_being_imported(module) and not _goes_by_value(module):
                cloudpickle.register_pickle_by_value(module)
                self._by_value.append(module)
        return super().reducer_override(value)


def _is_being_imported(module: ModuleType) -> bool:
    return getattr(getattr(module, "__spec__", None), "_initializing", False)


def _goes_by_value(module: ModuleType) -> bool:
    return module.__name__ in cloudpickle.list_registry_pickle_by_value()


class _ResultPickler(_Pickler):
    """A SharedArray that this process owns will be its receiver's."""

    def reducer_override(self, value: Any) -> Any:
        reduced = super().reducer_override(value)
        if isinstance(value, SharedArray) and not value.closed and value.owner:
            return receive, (value.segment.handle,)
        return reduced


def reduce_view(view: Array) -> tuple[Any, ...] | None:
    """How `view` travels without its data, in the terms of ``__reduce__``; None if it can't.

    Raises
    ------
    ClosedError
        If the array it looks into has been closed by its owner.
    """
    place = locate(view)
    if place is None or view.dtype.hasobject:
        return None
    segment, offset = place
    segment.check()
    described = (
        segment.handle,
        offset,
        view.shape,
        view.strides,
        view.dtype,
        view.flags.writeable,
    )
    if type(view) is np.ndarray:
        return _rebuild_view, described
    state = object.__getstate__(view)
    return _rebuild_subclass, (*described, type(view)), state, None, None, _set_state


def _rebuild_view(
    handle: Handle,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    writeable: bool,
) -> Array:
    _, whole = map_handle(handle)
    memory: Any = whole.base
    if 0 in shape:  # its strides may lead anywhere: there is nothing to follow them
        strides, offset = None, min(offset, memory.nbytes)
    # ndarray() checks that shape and strides stay inside `memory`.
    view: Array = np.ndarray(shape, dtype, buffer=memory, offset=offset, strides=strides)
    if not writeable:
        view.flags.writeable = False
    return view


def _rebuild_subclass(*described: Any) -> Array:
    *plain, kind = described
    return _rebuild_view(*plain).view(kind)


def _set_state(view: Array, state: Any) -> None:
    """What `object.__setstate__` would be: ndarray's own takes elements."""
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        vars(view).update(attributes)
    for name, value in (slots or {}).items():
        setattr(view, name, value)
    mask = getattr(view, "_mask", None)
    if isinstance(mask, np.ndarray) and locate(mask) is None:
        mask.flags.writeable = False  # a copy: what is written to it would be lost


def pack(plan: Plan) -> PackedPlan:
    """The plan as bytes.

    Raises
    ------
    KernelSerializationError
        If the kernel or an argument can't be pickled.
    """
    links, handles = [], _NONE
    for link in plan.links:
        kernel, captured = _pack_kernel(link.kernel)
        bare = replace(link.arguments, values=())  # they come with each call
        arguments, passed = _dumps(bare, _argument_of(link.kernel))
        links.append((kernel, arguments))
        handles |= captured | passed
    types = tuple(map(type, plan.values))
    journal, kept = _dumps(plan.journal, lambda: "a journal")
    size = sum(map(len, chain.from_iterable(links))) + 16 * len(plan.chunks)
    context = _pack_context(plan.context)
    return PackedPlan(
        tuple(links), types, plan.chunks, journal, plan.debug, context, handles | kept, size
    )


def unpack(packed: PackedPlan) -> Plan:
    """The plan, in a worker that has mapped its segments."""
    values = tuple(kind() for kind in packed.types)  # until a call brings its own
    links = []
    for kernel, arguments in packed.links:
        bound = replace(pickle.loads(arguments), values=values)
        links.append(Link(pickle.loads(kernel), bound))
    journal = pickle.loads(packed.journal)
    return Plan(
        tuple(links),
        packed.chunks,
        values,
        static=True,
        journal=journal,
        debug=packed.debug,
        context=unpack_context(packed.context),
    )


@functools.lru_cache(maxsize=8)
def _pack_context(context: CallContext | None) -> bytes:
    return _dumps(context, lambda: "the context of a call (np.seterrcall)")[0]


@functools.lru_cache(maxsize=8)
def unpack_context(packed: bytes) -> CallContext | None:
    """The context that a call is to have."""
    found: CallContext | None = pickle.loads(packed)
    return found


def pack_task(
    function: Function,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    context: CallContext | None = None,
) -> Task:
    """A call of a function as bytes.

    Raises
    ------
    KernelSerializationError
        If the function or an argument can't be pickled.
    """
    packed = _functions.get(function)
    if packed is None:
        packed = _dumps(function.function, lambda: f"the function {function.name}", _TaskPickler)
        _functions[function] = packed
    code, captured = packed
    call = args, keywords
    if _PLAIN.issuperset(map(type, chain(args, keywords.values()))):  # the quick way
        arguments, passed = pickle.dumps(call, pickle.HIGHEST_PROTOCOL), _NONE
    else:
        arguments, passed = _dumps(call, lambda: f"an argument of {function.name}", _TaskPickler)
    return Task(code, arguments, _pack_context(context), captured | passed)


def pack_result(value: Any, function: Any) -> Result:
    """What a task returned, with the segments in it that this process owns.

    Raises
    ------
    KernelSerializationError
        If it can't be pickled.
    """
    if type(value) in _PLAIN:
        return Result(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), _NONE)
    try:
        packed, handles = _pickled(value, _ResultPickler)
    except ShmComputeError:
        raise
    except Exception as error:  # pickling runs any code
        raise KernelSerializationError(
            f"{describe(function)} ran, but its result, {type(value).__name__}, can't be "
            f"sent back: {type(error).__name__}: {error}. Return what pickles, or write into a "
            "SharedArray"
        ) from error
    given = frozenset(handle for handle in handles if _own(handle))
    return Result(packed, given)


def unpack_result(result: Result, function: Function) -> Any:
    """What a task returned; arrays that its worker made are this process's from now on."""
    adopted = [adopt(handle) for handle in result.given]
    try:
        return pickle.loads(result.value)
    except BaseException as error:  # unpickling runs any code
        raise KernelSerializationError(
            f"the result of {function.name} does not unpickle here: {type(error).__name__}: {error}"
        ) from error
    finally:
        del adopted  # what holds the result holds its arrays


def _own(handle: Handle) -> bool:
    segment = mapped(handle)
    return segment is not None and segment.owner


def _pack_kernel(kernel: Kernel) -> tuple[bytes, frozenset[Handle]]:
    def what() -> str:
        return f"kernel {kernel.name}"

    if not isinstance(kernel, NumbaKernel) or kernel.function is not kernel.dispatcher:
        return _dumps(kernel, what)
    versions = tuple(map(id, kernel.dispatcher.overloads.values()))
    known = _kernels.get(kernel.dispatcher)
    if known is None or known[0] != versions:
        known = _kernels[kernel.dispatcher] = (versions, *_dumps(kernel, what))
    return known[1:]


def _argument_of(kernel: Kernel) -> Callable[[], str]:
    return lambda: f"an argument of kernel {kernel.name}"


def _dumps(
    value: Any, what: Callable[[], str], pickler: type[_Pickler] = _Pickler
) -> tuple[bytes, frozenset[Handle]]:
    try:
        return _pickled(value, pickler)
    except ShmComputeError:
        raise
    except Exception as error:
        raise KernelSerializationError(
            f"{what()} can't be sent to a worker process: {type(error).__name__}: {error}. Make "
            'what it refers to inside the kernel, or choose backend="threads"'
        ) from error


def _pickled(value: Any, kind: type[_Pickler]) -> tuple[bytes, frozenset[Handle]]:
    buffer = io.BytesIO()
    pickler = kind(buffer)
    pickler.dump(value)
    return buffer.getvalue(), frozenset(pickler.handles)


def pack_error(number: int | None, error: BaseException) -> Failure:
    """An exception as bytes; one that does not survive pickling is replaced by its text."""
    shorten(error, kept=0)
    formatted = "".join(traceback.format_exception(error))
    summary = traceback.format_exception_only(error)[0].strip()
    try:
        packed: bytes = cloudpickle.dumps(error)
        if type(pickle.loads(packed)) is not type(error):
            raise TypeError("it comes back as another type")
    except BaseException as why:  # noqa: BLE001  # pickling runs any code
        stand_in = RemoteKernelError(
            f"{summary} (the exception itself does not pickle: {type(why).__name__})"
        )
        for note in getattr(error, "__notes__", ()):
            stand_in.add_note(note)
        packed = cloudpickle.dumps(stand_in)
    return Failure(number, packed, summary, formatted)


class _RemoteTraceback(Exception):  # noqa: N818  # named as in concurrent.futures
    """The traceback in the worker, shown as the cause of what is raised here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def unpack_error(failure: Failure) -> BaseException:
    """The exception that a worker sent, with the worker's traceback as its cause."""
    cause = _RemoteTraceback(failure.traceback)
    try:
        error = pickle.loads(failure.error)
        if isinstance(error, BaseException):
            error.__cause__ = cause  # which some refuse
            return error
        why = f"it comes back as {type(error).__name__}"
    except (Exception, SystemExit) as refused:  # noqa: BLE001  # unpickling runs any code
        why = f"{type(refused).__name__}: {refused}"
    stand_in = RemoteKernelError(
        f"{failure.summary} (the exception itself does not unpickle here: {why})"
    )
    stand_in.__cause__ = cause
    return stand_in

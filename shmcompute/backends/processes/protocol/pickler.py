"""`Pickler`: how values travel; shared arrays and views do so as handles.

By value (cloudpickle) go functions and classes that a worker can't import: those of ``__main__``,
of notebooks, lambdas, closures. An ndarray that looks into a segment goes as its handle, offset,
shape and strides, wherever in the arguments it stands.
"""

from __future__ import annotations

import io
import marshal
import pickle
import sys
from contextlib import suppress
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle
import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.arrays import SharedArray, receive
from shmcompute.backends.processes.protocol.module_globals import restore_function
from shmcompute.kernels import reduce_dispatcher
from shmcompute.storage import Handle, locate, map_handle
from shmcompute.system.reloads import renamed
from shmcompute.typing import Array


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not typed
    """Sends handles in place of shared arrays and views, and notes them in `handles`."""

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

    def _dynamic_function_reduce(self, function: FunctionType) -> tuple[Any, ...]:
        *made, _ = super()._dynamic_function_reduce(function)
        return *made, restore_function


class TaskPickler(Pickler):
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


class ResultPickler(Pickler):
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

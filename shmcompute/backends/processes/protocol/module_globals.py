"""Globals of modules that travel by value, as a pool's initializer leaves them in its worker.

A function of ``__main__``, or of a notebook, brings copies of the globals that it names, and each
pickle has its own. What an initializer puts there tasks and kernels would not see, though they are
of one module. So a worker keeps it, and gives it to all functions of that module that come later:
as if they had found the module that the initializer has changed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, TypeVar

import numpy as np
from cloudpickle import cloudpickle
from numba.core.dispatcher import Dispatcher

from shmcompute.arrays import SharedArray
from shmcompute.storage import locate

T = TypeVar("T")
Namespace = dict[str, Any]

_kept: dict[str, Namespace] = {}  # by the module's name
_coming: dict[int, Namespace] | None = None  # those of functions that are being unpickled, by id

# What nobody changes but by binding its name anew.
_CODE = (type, ModuleType, FunctionType, BuiltinFunctionType, Dispatcher, np.ufunc)
_CONSTANTS = (bool, int, float, complex, str, bytes, tuple, frozenset, type(None))


def restore_function(function: FunctionType, state: Any) -> None:
    """Fill a function that came by value, and its globals."""
    cloudpickle._function_setstate(function, state)
    namespace = function.__globals__
    namespace.update(_kept.get(namespace.get("__name__", ""), {}))
    if _coming is not None:
        _coming[id(namespace)] = namespace


def keep_globals(unpickle: Callable[[], T], call: Callable[[T], object]) -> None:
    """Make a call, and keep what it leaves in the globals of functions that came for it.

    That is: names that it has bound, and of the objects that they brought those which it could have
    changed.
    """
    global _coming
    _coming = {}
    try:
        came = unpickle()
        namespaces = list(_coming.values())
    finally:
        _coming = None
    before = [dict(namespace) for namespace in namespaces]
    call(came)
    for namespace, old in zip(namespaces, before, strict=True):
        left = {
            name: value
            for name, value in namespace.items()
            if not name.startswith("__") and (old.get(name, old) is not value or _is_state(value))
        }
        _kept.setdefault(namespace.get("__name__", ""), {}).update(left)


def _is_state(value: Any) -> bool:
    """Whether an object may have another content than it came with, and is this process's own."""
    if isinstance(value, (*_CODE, *_CONSTANTS, SharedArray)):
        return False
    return not (isinstance(value, np.ndarray) and locate(value) is not None)

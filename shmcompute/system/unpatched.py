"""The standard library's threads and polls, also in a program that gevent or eventlet has patched.

There, `threading.Thread` is a greenlet: it runs only when others wait by the library's own means.
One that waits in machine code would halt the whole program. So what has to be a thread of the
operating system's, or has to wait as one, takes these modules: the program's own where it has
patched nothing, else copies that were made anew.
"""

from __future__ import annotations

import _thread
import importlib.util
import sys
import time
from types import BuiltinFunctionType, ModuleType
from typing import TYPE_CHECKING

__all__ = ["give_way", "patched", "select", "threading"]

TURN = 1e-3  # seconds


def patched() -> bool:
    """Whether threads are greenlets in this program."""
    return not isinstance(_thread.start_new_thread, BuiltinFunctionType)


def give_way(seconds: float) -> float:
    """Let other greenlets go on, if there are such, before this one waits in machine code.

    Returns
    -------
    float
        For how long it may wait, of these seconds, until it lets others go on again.
    """
    if not patched():
        return seconds
    time.sleep(0)
    return min(seconds, TURN)


def _anew(name: str) -> ModuleType:
    """A module of the standard library's, loaded once more beside the one that there is."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _threading_anew() -> ModuleType:
    thread = sys.modules["_thread"]
    sys.modules["_thread"] = _anew("_thread")
    try:
        return _anew("threading")
    finally:
        sys.modules["_thread"] = thread


if TYPE_CHECKING or not patched():
    import select
    import threading
else:
    select, threading = _anew("select"), _threading_anew()

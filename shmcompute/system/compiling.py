"""Having Numba compile or load code where no handler of a signal runs.

An exception that a handler raises in the middle of that, such as Ctrl-C's, leaves a registry of
Numba's half loaded, or llvmlite's lock taken for ever: nothing would compile any more in this
program, ours or not.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher

from shmcompute.system import recording
from shmcompute.system.interrupts import call_uninterrupted

T = TypeVar("T")

_IMPORT = "<frozen importlib._bootstrap>"


def call_compiler(function: Callable[[], T]) -> T:
    """Call what compiles or loads machine code; its result.

    Not in another thread where this one has a lock that the other may need: Numba's own, or that of
    a module that it imports.
    """
    if not _in_main_thread() or global_compiler_lock.is_locked() or _imports():  # type: ignore[no-untyped-call]
        return function()
    if (recorder := recording.recorder) is not None:
        function = recorder.on_behalf(function)
    return call_uninterrupted(function)


def _in_main_thread() -> bool:
    return threading.get_ident() == threading.main_thread().ident


def _imports() -> bool:
    """Whether this thread is importing a module."""
    frame = sys._getframe()
    while (caller := frame.f_back) is not None:
        if caller.f_code.co_filename == _IMPORT:
            return True
        frame = caller
    return False


class ShieldedDispatcher(CPUDispatcher):
    """A dispatcher of ours. Its calls enter Python only to have it compiled."""

    def _compile_for_args(self, *args: Any, **kwargs: Any) -> Any:
        compile_for_args = super()._compile_for_args  # type: ignore[misc]  # Numba is not typed
        return call_compiler(lambda: compile_for_args(*args, **kwargs))

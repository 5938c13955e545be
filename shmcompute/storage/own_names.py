"""The names of segments that this process has given, taken away at its end, however late it came.

Exit handlers run in reverse order: what the program registered before it imported us runs after
ours. So do destructors of what lives to the end, and daemon threads, which stop wherever they are
when the interpreter goes. What is made then, no Python code is sure to remove. So libc is told to,
before the name is given: it does what it was told when the interpreter is gone.

Invariant: each name is noted before it is given, and forgotten after it was taken away or left to
another process. `_take_away` sees a name that was noted before, and who notes one looks afterwards
whether that has begun; so no name is missed between two threads.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import util
from typing import Any

from shmcompute.storage import liveness
from shmcompute.storage.shm_space import FOLDER

_LAST = -200  # of multiprocessing's finalizers: tasks may have some that use arrays

_removers: dict[str, Callable[[], None] | None] = {}  # None: the name is about to be given
_told: dict[str, list[int]] = {}  # addresses of the strings that libc has, by name
_process = 0  # the one that takes them away, once it was prepared to
_ending = False


@contextmanager
def given(name: str, remove: Callable[[], None]) -> Iterator[None]:
    """Give a name meanwhile. It is taken away by `remove` at the end, unless it was forgotten."""
    _note(name, None)
    try:
        yield
    except BaseException:
        forget(name)
        raise
    _removers[name] = remove


def adopt(name: str, remove: Callable[[], None]) -> None:
    """Take over a name that another process gave."""
    _note(name, remove)


def _note(name: str, remove: Callable[[], None] | None) -> None:
    _removers[name] = remove
    if _process != os.getpid():
        _prepare()
    if _ending:
        _tell_libc(name)


def forget(name: str) -> None:
    """It is gone, or another process's."""
    _removers.pop(name, None)
    for address in _told.pop(name, ()):
        ctypes.memset(address, 0, 1)  # no file is called ""


def ending() -> bool:
    """Whether the program's end has come so far that what is made is to be removed at once."""
    return _ending


@atexit.register
def _take_away() -> None:
    """Take away the names there are; from now on libc is told of each."""
    global _ending
    if _process not in (0, os.getpid()):
        return  # forked behind Python's back
    _ending = True
    for name, remove in list(_removers.items()):
        if remove is None:  # another thread is giving it
            _tell_libc(name)
        else:
            with suppress(OSError):
                remove()
            forget(name)


def _prepare() -> None:
    """Take away the names of this process at its end.

    A child of `multiprocessing` runs no exit handlers before Python 3.13. That it is one is not
    known yet when it imports us.
    """
    global _process
    _process = os.getpid()
    if multiprocessing.parent_process() is not None:
        util.Finalize(None, _end_of_child, exitpriority=_LAST)


def _end_of_child() -> None:
    for thread in threading.enumerate():  # as at the end of a program, where they are waited for
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    _take_away()


def _tell_libc(name: str) -> None:
    """Have libc remove a name when the process exits, after the interpreter."""
    strings = _told.setdefault(name, [])
    with suppress(AttributeError, OSError):  # another libc
        for function, argument in _removals(name):
            address = _libc().strdup(argument)
            strings.append(address)
            register = getattr(_libc(), "__cxa_atexit")  # not mangled so
            register(ctypes.cast(function, ctypes.c_void_p), ctypes.c_void_p(address), None)


def _removals(name: str) -> list[tuple[Any, bytes]]:
    """The functions of libc, and their arguments, that remove all that has this name."""
    libc = _libc()
    files = [liveness.folder() / name, liveness.folder() / liveness.HELD / name]
    removals = [(libc.unlink, os.fsencode(path)) for path in files if liveness.by_file()]
    linux: bool = sys.platform == "linux"
    segment = os.fsencode(FOLDER / name) if linux else b"/" + os.fsencode(name)
    return [(libc.unlink if linux else libc.shm_unlink, segment), *removals]


def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.strdup.restype = ctypes.c_void_p
    return libc


def _after_fork() -> None:
    """A child gave none of these names; it has the strings that libc was told of, too."""
    global _ending, _process
    for name in [*_removers, *_told]:
        forget(name)
    _ending, _process = False, 0


os.register_at_fork(after_in_child=_after_fork)

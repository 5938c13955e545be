"""Workers start in a thread of their own, while the program goes on."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from multiprocessing import util

from shmcompute.backends import doorbell
from shmcompute.backends.processes import launch
from shmcompute.gate import Gate

PATIENCE = 5.0  # seconds that the end of a program waits for what starts

_starting: weakref.WeakKeyDictionary[threading.Thread, Gate] = weakref.WeakKeyDictionary()


def start(begin: weakref.WeakMethod[Callable[[], None]], begun: Gate, *, rings: bool) -> None:
    """Call `begin`, if its pool is there still, and open `begun`; `rings`: prepare to ring, too."""

    def work() -> None:
        try:
            found = begin()
            alive = found is not None
            if found is not None:
                found()
            del found  # a pool that was dropped meanwhile ends here
            begun.open()
            if alive and rings:
                doorbell.prepare()
        finally:
            begun.open()

    thread = threading.Thread(target=work, name="shmcompute-start", daemon=True)
    _starting[thread] = begun
    try:
        thread.start()
    except RuntimeError:  # no thread to be had: the first call starts them
        begun.open()


def _let_begin() -> None:
    """Before the program ends: multiprocessing is about to join processes that exist by then.

    One that is started later would be left with half of what it is to read, and one that is ended
    meanwhile would be closed under its hands.
    """
    for thread, begun in list(_starting.items()):
        if thread.is_alive():
            begun.wait(PATIENCE)


# Not atexit, where multiprocessing's own end would come first: it registers that when it is used.
util.Finalize(None, _let_begin, exitpriority=0)


def _let_start() -> None:
    """Before a fork: what a starting thread has locked would stay locked in the child."""
    for thread in list(_starting):
        if thread is not threading.current_thread() and thread.is_alive():
            thread.join(launch.FORK)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_let_start)

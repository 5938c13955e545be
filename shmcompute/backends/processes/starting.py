"""Workers start in a thread of their own, while the program goes on."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from shmcompute.backends import doorbell
from shmcompute.backends.processes import launch
from shmcompute.gate import Gate

_starting: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def start(begin: weakref.WeakMethod[Callable[[], None]], begun: Gate, *, rings: bool) -> None:
    """Call `begin`, if its pool is there still, and open `begun`; `rings`: prepare to ring, too."""

    def work() -> None:
        try:
            found = begin()
            alive = found is not None
            if found is not None:
                found()
                begun.open()
            del found
            if alive and rings:
                doorbell.prepare()
        finally:
            begun.open()

    thread = threading.Thread(target=work, name="shmcompute-start", daemon=True)
    _starting.add(thread)
    try:
        thread.start()
    except RuntimeError:  # no thread to be had: the first call starts them
        begun.open()


def _let_start() -> None:
    """Before a fork: what a starting thread has locked would stay locked in the child."""
    for thread in list(_starting):
        if thread is not threading.current_thread() and thread.is_alive():
            thread.join(launch.FORK)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_let_start)

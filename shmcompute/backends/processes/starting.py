"""Workers start in a thread of their own, while the program goes on."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from shmcompute.backends import doorbell
from shmcompute.backends.processes import launch

_starting: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def start(
    begin: weakref.WeakMethod[Callable[[], None]], begun: threading.Event, *, rings: bool
) -> None:
    """Call `begin`, if its pool is still there, then set `begun`; `rings`: prepare to ring, too."""

    def work() -> None:
        try:
            found = begin()
            alive = found is not None
            if found is not None:
                found()
                begun.set()
            del found
            if alive and rings:
                doorbell.prepare()
        finally:
            begun.set()

    thread = threading.Thread(target=work, name="shmcompute-start", daemon=True)
    _starting.add(thread)
    try:
        thread.start()
    except RuntimeError:  # no thread to be had: the first call starts them
        begun.set()


def _let_start() -> None:
    """Before a fork: what a starting thread has locked would stay locked in the child."""
    for thread in list(_starting):
        if thread is not threading.current_thread() and thread.is_alive():
            thread.join(launch.FORK)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_let_start)

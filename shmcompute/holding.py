"""Holding a lock of `threading` that is given back whenever Ctrl-C comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SLICE = 0.1  # seconds: a signal that comes just before a wait, or to another thread, ends no wait


def holding(
    lock: threading.Lock | threading.RLock, patience: float, work: Callable[[bool], T]
) -> T:
    """Call `work(taken)` and return what it returns; `taken`: whether it holds the lock.

    Python raises `KeyboardInterrupt` after any call, so also between ``acquire()`` and a ``try``
    that follows, and ``with`` takes no timeout. A context manager written in Python would be no
    help: an interrupt at its first or last step leaves it to the traceback, and with it the lock.

    Parameters
    ----------
    lock : threading.Lock or threading.RLock
    patience : float
        Seconds to wait for it at most; `math.inf`: until it comes.
    work : callable
        Called once, with or without the lock.
    """
    until = time.monotonic() + patience
    taken: list[bool] = []
    try:
        while True:
            left = max(0.0, until - time.monotonic())
            # One step for the interpreter, which looks at signals between steps.
            taken[:] = map(lock.acquire, (True,), (min(SLICE, left),))
            if taken[0] or not left:
                break
        return work(taken[0])
    finally:
        # No call before this one: after any an interrupt may come, and the lock would stay taken.
        if taken and taken[0]:
            lock.release()

"""`Gate`: what opens once, and whoever waits goes on."""

from __future__ import annotations

import math
import threading
from contextlib import suppress

from shmcompute.holding import holding


class Gate:
    """`threading.Event` for threads that Ctrl-C may interrupt.

    An Event is a lock and a list under Python's hands: an interrupt at the wrong step of its
    ``wait()`` or ``set()`` leaves it locked, and the next to call ``set()`` hangs.
    """

    def __init__(self) -> None:
        self._shut = [True]
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let all through from now on; more than once does nothing."""
        with suppress(IndexError):
            self._shut.pop()
            self._lock.release()

    def wait(self, patience: float = math.inf) -> bool:
        """Return when it is open, or after `patience` seconds; whether it is."""
        return holding(self._lock, patience, bool)

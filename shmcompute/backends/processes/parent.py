"""A worker ends with its parent, whatever it is doing."""

from __future__ import annotations

import os
import select
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numba import types

from shmcompute.words import jitted

PATIENT = 1 << 16  # signals that may come while one waits
_POLLED = np.dtype([("fd", np.int32), ("events", np.int16), ("revents", np.int16)])

_int32: Any = types.int32  # called, a type makes a signature, which its own types do not say
_void: Any = types.void
_poll: Any = types.ExternalFunction("poll", _int32(types.int64, types.int64, types.int32))
_exit: Any = types.ExternalFunction("_exit", _void(types.int32))


@jitted
def _end_with(polled: int) -> None:
    """End this process when that descriptor hangs up; returns if one can't wait for it."""
    for _ in range(PATIENT):
        if _poll(polled, 1, -1) > 0:
            _exit(1)


def prepare() -> None:
    """Have it compiled, if machine code is to be had."""
    if hasattr(_end_with, "compile") and sys.maxsize > 1 << 32:
        _end_with.compile((types.int64,))


def watch_parent(connection: Connection[Any, Any]) -> None:
    """End this process when the parent's end of the pipe closes.

    A thread waits for that, in machine code: Python's own way needs the GIL to come back, and a
    kernel may hold that for ever.
    """
    if not hasattr(select, "poll"):
        return
    prepare()  # not in the thread: a kernel might begin before it is done
    # No events: nothing but hang-up and error.
    polled = np.array([(connection.fileno(), 0, 0)], _POLLED)
    poll = select.poll()
    poll.register(connection.fileno(), 0)

    def wait_for_end() -> None:
        if getattr(_end_with, "overloads", None):
            _end_with(polled.ctypes.data)
        poll.poll()
        os._exit(1)

    threading.Thread(target=wait_for_end, name="parent-watch", daemon=True).start()

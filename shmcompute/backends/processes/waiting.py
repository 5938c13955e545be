"""Waiting for descriptors with an ear for Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Sequence
from multiprocessing import connection
from typing import Any

from shmcompute.holding import SLICE


def wait(objects: Sequence[Any], patience: float | None = None) -> list[Any]:
    """`multiprocessing.connection.wait`, which looks up now and then.

    A signal ends a system call that it finds running. If it comes a moment earlier, or to another
    thread, the call goes on, and Python's handler would have to wait until it has ended.
    """
    until = None if patience is None else time.monotonic() + patience
    while True:
        left = SLICE if until is None else min(SLICE, until - time.monotonic())
        found = connection.wait(objects, max(0.0, left))
        if found or (until is not None and time.monotonic() >= until):
            return found

"""Daemon threads at the program's end: Python stops them without a word, and so do we.

One that is in a call of ours meets the end a little earlier than Python does: its pool is closed,
its worker is gone. That it raises, and `threading` would print it.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

_PACKAGE = __name__.partition(".")[0]


def end_silently() -> None:
    """The main thread has ended: from now on they need not tell what ended them."""
    threading.excepthook = partial(_unless_ended, threading.excepthook)


def _unless_ended(hook: Any, args: Any) -> None:
    if not (_last(args.thread) and _from_here(args.exc_value)):
        hook(args)


def _last(thread: threading.Thread | None) -> bool:
    """Whether the program waits for no thread any more, this one not among those it waits for."""
    others = [other for other in threading.enumerate() if other is not threading.main_thread()]
    return thread is not None and thread.daemon and all(other.daemon for other in others)


def _from_here(error: BaseException | None) -> bool:
    """Whether an exception came out of this package, or a future of its."""
    if isinstance(error, CancelledError) or type(error).__module__.startswith(f"{_PACKAGE}."):
        return True
    traceback = None if error is None else error.__traceback__
    while traceback is not None:
        if str(traceback.tb_frame.f_globals.get("__name__")).startswith(f"{_PACKAGE}."):
            return True
        traceback = traceback.tb_next
    return False

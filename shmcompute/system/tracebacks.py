"""`shorten`: have the traceback of what the user's code raised show the user's code."""

from __future__ import annotations

import sys
from types import FrameType, TracebackType

from shmcompute.errors import ShmComputeError

PACKAGE = __name__.partition(".")[0] + "."
_AS_USERS_DO = (PACKAGE + "testing.", PACKAGE + "cli.")  # kernels stand there, too
_RAISE_FOR_KERNELS = tuple(
    PACKAGE + module for module in ("kernels.base", "backends.base", "backends.doorbell.worker")
)


def shorten(error: BaseException, kept: int = 1) -> None:
    """Drop this package's frames, which lead from a call to what it runs, but for the first.

    They stay where the package itself failed, for then they tell why. An error of another process
    has the traceback there as its cause.
    """
    parts = []
    part = error.__traceback__
    while part is not None:
        parts.append(part)
        part = part.tb_next
    if not parts or _is_fault(error, parts[-1]):
        return
    shorter = None
    for position, part in reversed([*enumerate(parts)]):
        if position < kept or not _is_own(part):
            shorter = TracebackType(shorter, part.tb_frame, part.tb_lasti, part.tb_lineno)
    BaseException.with_traceback(error, shorter)  # some refuse to have attributes set


def level_of_user() -> int:
    """The stack level, for a warning of the function that asks, of the code that called us."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and _is_ours(frame):
        level, frame = level + 1, frame.f_back
    return level


def _is_fault(error: BaseException, last: TracebackType) -> bool:
    """Whether neither a kernel raised it nor a message of ours says it all."""
    told = isinstance(error, ShmComputeError) or error.__cause__ is not None
    return not told and _is_own(last) and _module(last) not in _RAISE_FOR_KERNELS


def _is_own(part: TracebackType) -> bool:
    return _is_ours(part.tb_frame)


def _is_ours(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__"))
    return module.startswith(PACKAGE) and not module.startswith(_AS_USERS_DO)


def _module(part: TracebackType) -> str:
    return str(part.tb_frame.f_globals.get("__name__"))

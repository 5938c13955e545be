"""Pickles of exceptions; each arrives, be it by its text alone."""

from __future__ import annotations

import pickle
import traceback

import cloudpickle

from shmcompute.backends.processes.protocol.messages import Failure
from shmcompute.errors import RemoteKernelError
from shmcompute.system.tracebacks import shorten


def pack_error(number: int | None, error: BaseException) -> Failure:
    """An exception as bytes; one that does not survive pickling is replaced by its text."""
    shorten(error, kept=0)
    formatted = "".join(traceback.format_exception(error))
    summary = traceback.format_exception_only(error)[0].strip()
    try:
        packed: bytes = cloudpickle.dumps(error)
        if type(pickle.loads(packed)) is not type(error):
            raise TypeError("it comes back as another type")
    except BaseException as why:  # noqa: BLE001  # pickling runs any code
        stand_in = RemoteKernelError(
            f"{summary} (the exception itself does not pickle: {type(why).__name__})"
        )
        for note in getattr(error, "__notes__", ()):
            stand_in.add_note(note)
        packed = cloudpickle.dumps(stand_in)
    return Failure(number, packed, summary, formatted)


class _RemoteTraceback(Exception):  # noqa: N818  # named as in concurrent.futures
    """The traceback in the worker, shown as the cause of what is raised here."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def unpack_error(failure: Failure) -> BaseException:
    """The exception that a worker sent, with the worker's traceback as its cause."""
    cause = _RemoteTraceback(failure.traceback)
    try:
        error = pickle.loads(failure.error)
        if isinstance(error, BaseException):
            error.__cause__ = cause  # which some refuse
            return error
        why = f"it comes back as {type(error).__name__}"
    except (Exception, SystemExit) as refused:  # noqa: BLE001  # unpickling runs any code
        why = f"{type(refused).__name__}: {refused}"
    stand_in = RemoteKernelError(
        f"{failure.summary} (the exception itself does not unpickle here: {why})"
    )
    stand_in.__cause__ = cause
    return stand_in

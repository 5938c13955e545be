"""`Initializer`: what each worker of a pool calls before anything else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from shmcompute.errors import WorkerInitError
from shmcompute.tasks.work_item import Function


class Initializer:
    """A function and its arguments, for whoever is to run kernels and tasks.

    Threads call it here: each once, before it runs Python for the pool. One that failed is called
    again by the next call or task, so that what has been mended meanwhile works.

    Raises
    ------
    TypeError
        For what can't be called, or no tuple of arguments.
    """

    def __init__(self, function: Callable[..., object], args: Any) -> None:
        if not callable(function):
            raise TypeError(f"initializer: expected a callable, got {function!r}")
        if not isinstance(args, (tuple, list)):
            raise TypeError(
                f"initargs: expected a tuple of arguments, got {args!r}; of one argument it is "
                f"({args!r},)"
            )
        self.function = Function(function)
        self.args = tuple(args)
        self._here = threading.local()

    def __call__(self) -> None:
        """Call it in this thread, if this was not done yet."""
        if getattr(self._here, "done", False):
            return
        try:
            self.function(self.args, {})
        except (Exception, SystemExit) as error:
            where = f"thread {threading.current_thread().name!r}"
            raise refusal(self.function.name, where, error) from error
        self._here.done = True


def refusal(name: str, where: str, error: BaseException) -> WorkerInitError:
    """The error of a call or task whose worker could not be initialized."""
    refused = WorkerInitError(
        f"the initializer {name} failed in {where}: {type(error).__name__}: {error}. Nothing runs "
        "where it fails; the next call or task tries it again"
    )
    refused.__cause__ = error
    return refused

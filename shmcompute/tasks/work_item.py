"""`WorkItem`: a function, its arguments, and the future of its result."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shmcompute.system.call_context import CallContext
from shmcompute.system.context import nesting
from shmcompute.system.recording import TaskSpan


@dataclass(eq=False)
class Function:
    """The function of one or many work items: backends pickle it once."""

    function: Callable[..., Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        return describe(self.function)

    def __call__(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call it in this thread, which counts as inside a task until it returns."""
        nesting.depth += 1
        try:
            return self.function(*args, **keywords)
        finally:
            nesting.depth -= 1


@dataclass(eq=False)
class WorkItem:
    """A task, as its caller sees it."""

    function: Function
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    context: CallContext | None = None  # the caller's, where another process is to have it
    task: TaskSpan | None = None  # as somebody traces it
    future: Future[Any] = field(default_factory=Future)
    _running: bool = False

    def starts(self) -> bool:
        """Start it, unless it was cancelled; whether it has started. May be called again."""
        self._running = self._running or self.future.set_running_or_notify_cancel()
        return self._running

    def cancel(self) -> bool:
        """Cancel it, unless it has started; whether it is cancelled."""
        return self.future.cancel() and not self.future.set_running_or_notify_cancel()

    def succeed(self, value: Any) -> None:
        """Give the future this result, unless it has one (anybody may set it)."""
        if self.task is not None:
            self.task.end()
        with suppress(BaseException):  # a callback's error must not end the tasks of others
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Give the future this exception, unless it has a result."""
        if self.task is not None:
            self.task.end(error)
        with suppress(BaseException):
            self.future.set_exception(error)

    def run(self) -> None:
        """Call it in this thread."""
        self.future.set_running_or_notify_cancel()
        try:
            result = self.function(self.args, self.keywords)
        except BaseException as error:
            self.future.set_exception(error)
            if isinstance(error, KeyboardInterrupt):  # meant for the caller, which is this thread
                raise
        else:
            self.future.set_result(result)


def each(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """Call the function for each item of a chunk; a chunk of a map is one task."""
    return [function(*args) for args in chunk]


def describe(function: Callable[..., Any]) -> str:
    """What messages call a function."""
    if isinstance(function, partial):
        return describe(function.args[0] if function.func is each else function.func)
    return getattr(function, "__qualname__", None) or repr(function)

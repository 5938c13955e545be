"""`WorkItem`: a function, what it is to be called with, and the future of its outcome."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shmcompute.system.context import nesting


@dataclass(eq=False)
class Function:
    """What work items have in common: backends pickle it once."""

    function: Callable[..., Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        return describe(self.function)

    def __call__(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call it in this thread, which is inside a task meanwhile."""
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
    future: Future[Any] = field(default_factory=Future)
    _running: bool = False

    def starts(self) -> bool:
        """Whether it was not cancelled; it can't be from now on. May be asked again."""
        self._running = self._running or self.future.set_running_or_notify_cancel()
        return self._running

    def cancel(self) -> bool:
        """Cancel it, unless it has started; whether it is."""
        return self.future.cancel() and not self.future.set_running_or_notify_cancel()

    def succeed(self, value: Any) -> None:
        """Have the future hold this result, unless somebody has set it himself."""
        with suppress(BaseException):  # a callback's, which is not to end the tasks of others
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Have the future hold this exception, unless somebody has set it himself."""
        with suppress(BaseException):
            self.future.set_exception(error)

    def run(self) -> None:
        """Call it in this thread."""
        self.future.set_running_or_notify_cancel()
        try:
            result = self.function(self.args, self.keywords)
        except BaseException as error:
            self.future.set_exception(error)
            if isinstance(error, KeyboardInterrupt):  # it is the caller's, who is this thread
                raise
        else:
            self.future.set_result(result)


def each(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    """The task that a chunk of a map is."""
    return [function(*args) for args in chunk]


def describe(function: Callable[..., Any]) -> str:
    """What messages call a function."""
    if isinstance(function, partial):
        return describe(function.args[0] if function.func is each else function.func)
    return getattr(function, "__qualname__", None) or repr(function)

"""`Call`: a function, what it is to be called with, and the future that tells what came of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from shmcompute.plan import Within


@dataclass(eq=False)
class Function:
    """What calls have in common, so that it is pickled once."""

    function: Callable[..., Any]
    packed: Any = None  # as a backend keeps it

    @property
    def name(self) -> str:
        """What messages call it."""
        return told(self.function)

    def __call__(self, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Call it in this thread, which is inside a task meanwhile."""
        with Within():
            return self.function(*args, **keywords)


@dataclass(eq=False)
class Call:
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


def told(function: Callable[..., Any]) -> str:
    """What messages call a function."""
    if isinstance(function, partial):
        return told(function.args[0] if function.func is each else function.func)
    return getattr(function, "__qualname__", None) or repr(function)

"""`Meter`: how far a call has come, as `progress=` asks to be told: by a bar, lines, or a callable.

Who waits for the work tells it, from counters that are there anyhow; who does the work does
nothing for it. It stands on the lowest floor, for those who wait are on many: calls, sweeps, tasks,
the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import suppress
from time import monotonic
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")
Asked = bool | str | Callable[[int, int | None], object] | None

# Seconds. What is over sooner shows nothing: a loop of quick calls would fill the screen, or a log.
SOON = 0.5  # for bars
FIRST, LONGEST = 2.0, 60.0  # for lines; and from line to line at most, which doubles
SLICE = 0.1  # from look to look, of who waits for tasks


class Display(Protocol):
    """What shows how far it is."""

    def show(self, done: int) -> None:
        """So much is done, more than was before."""

    def close(self) -> None:
        """No more comes. Idempotent."""


def asked_for(progress: Asked) -> Asked:
    """What `progress=` asks for; None for nothing.

    Raises
    ------
    TypeError
        If it is neither a bool, nor a string, nor a callable.
    """
    if progress is None or progress is False:
        return None
    if progress is True or isinstance(progress, str) or callable(progress):
        return progress
    raise TypeError(
        "progress: expected True, a description of the bar, or a callable (done, total), got "
        f"{progress!r} ({type(progress).__name__})"
    )


class Meter:
    """Shows how much of a work is done: once at its begin, and then whenever there is more.

    Parameters
    ----------
    progress : True, str or callable
        As `asked_for` returns it.
    total : int or None
        How much there is to do, if that is known.
    unit : str
        Of what, such as ``"chunk"``.
    name : str
        What a bar says where no description is given.

    Examples
    --------
    >>> with Meter(lambda done, total: print(done, "of", total), 3, "chunk", "scale") as meter:
    ...     meter(2)
    ...     meter(1)
    ...     meter.add(3)
    0 of 3
    2 of 3
    3 of 3
    """

    def __init__(self, progress: Asked, total: int | None, unit: str, name: str) -> None:
        self._shown = -1
        self._before = 0  # done in earlier parts of the work
        text = progress if isinstance(progress, str) else name
        self._display = (
            _Callback(progress, total) if callable(progress) else _display(text, total, unit)
        )

    def __call__(self, done: int) -> None:
        """So much of this part is done: all, if there is but one part."""
        if self._before + done > self._shown:
            self._shown = self._before + done
            self._display.show(self._shown)

    def add(self, count: int) -> None:
        """A part of so much is over, and perhaps another one begins."""
        self(count)
        self._before += count

    def __enter__(self) -> Self:
        self(0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave what is shown as it is, and end. Idempotent."""
        self._display.close()


def counted(items: Iterable[T], unit: str, name: str, total: int | None = None) -> Iterator[T]:
    """The items, with a meter of how many were taken, for long work of our own."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Meter(True, total, unit, name) as meter:
        for item in items:
            yield item
            meter.add(1)


class _Callback:
    """Calls what the caller has given."""

    def __init__(self, function: Callable[[int, int | None], object], total: int | None) -> None:
        self._function, self._total = function, total

    def show(self, done: int) -> None:
        self._function(done, self._total)

    def close(self) -> None:
        pass


def _display(name: str, total: int | None, unit: str) -> Display:
    """A bar where one can be drawn, else lines."""
    if _in_notebook() or (sys.stderr is not None and sys.stderr.isatty()):
        with suppress(ImportError):
            return _Bar(name, total, unit)
    return _Lines(name, total, unit)


def _in_notebook() -> bool:
    """Whether cells of a notebook are run here, to which stderr goes."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


class _Bar:
    """A bar of tqdm, in a terminal or a notebook."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        from tqdm.auto import tqdm  # noqa: PLC0415  # optional, and 50 ms

        class Bar(tqdm):  # type: ignore[misc]  # not typed
            monitor_interval = 0  # no thread: it looks whether a guess of `miniters` was good

        self._bar: Any = Bar(
            desc=name or None, total=total, unit=unit, miniters=1, delay=SOON, file=sys.stderr
        )

    def show(self, done: int) -> None:
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """A line on stderr now and then, and a last one."""

    def __init__(self, name: str, total: int | None, unit: str) -> None:
        self._name, self._total, self._unit = name or "progress", total, unit
        self._began = monotonic()
        self._next, self._step = self._began + FIRST, FIRST
        self._done = self._told = 0

    def show(self, done: int) -> None:
        self._done, now = done, monotonic()
        if now >= self._next:
            self._step = min(2 * self._step, LONGEST)
            self._next = now + self._step
            self._write(now - self._began)

    def close(self) -> None:
        now = monotonic()
        if self._done != self._told and now - self._began >= FIRST:
            self._write(now - self._began)

    def _write(self, seconds: float) -> None:
        self._told = self._done
        line = f"{self._name}: {_progress(self._done, self._total, self._unit, seconds)}\n"
        with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
            if sys.stderr is not None:
                sys.stderr.write(line)
                sys.stderr.flush()


def _progress(done: int, total: int | None, unit: str, seconds: float) -> str:
    """How far it is, in words."""
    rate = done / seconds if seconds > 0 else 0.0
    told = [f"{done} {unit}s" if total is None else f"{done}/{total} {unit}s"]
    if total:
        told.append(f"{100 * done // total} %")
    told.append(f"{seconds:.0f} s")
    if total is not None and 0 < done < total:
        told.append(f"{(total - done) / rate:.0f} s left")
    return f"{', '.join(told)}, {rate:.3g} {unit}s/s"

"""`trace`: records what calls, workers and tasks do, and when."""

# Numba is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import atexit
import os
import threading
import time
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from numba.core import event

from shmcompute import config, events
from shmcompute.diagnostics.traced import Traced, TracedCall, TracedTask
from shmcompute.system import recording
from shmcompute.system.records import Span

if TYPE_CHECKING:  # they are imported where somebody asks for them
    from shmcompute.diagnostics.trace_summary import Summary

Pathname = str | PathLike[str]

_lock = threading.RLock()  # reentrant, for handlers of signals
_open: list[Trace] = []
_stop_listening: list[Any] = []


def trace(path: Pathname | None = None, *, limit: int = recording.LIMIT) -> Trace:
    """Record what happens within a ``with``: calls, chunks, plans sent, compilations, tasks, ends.

    Workers note in shared memory, in machine code, when each chunk began and ended: some 0.1
    microseconds a chunk, and one a call. Traces may be nested, and see all threads and pools.

    Parameters
    ----------
    path : path, optional
        Where to `Trace.save` it at the end of the ``with``, however that ends.
    limit : int
        How many calls, chunks, tasks and other things are kept, some 200 bytes each. What is beyond
        is counted in `Trace.lost`.

    Returns
    -------
    Trace
        Records between its ``with`` and the end of that, and tells it afterwards, or so far.

    Raises
    ------
    TypeError, ValueError
        For a `limit` that is no number of at least 1.

    Examples
    --------
    >>> import time, numpy as np, shmcompute as sc
    >>> def slow_at_the_end(x, start):
    ...     time.sleep(0.1 if start else 0)
    >>> with sc.Pool(2) as pool, sc.SharedArray(np.zeros(2)) as arr, sc.trace() as t:
    ...     sc.parallel_apply(slow_at_the_end, arr, sc.offset, pool=pool)
    >>> [(call.name, len(call.chunks)) for call in t.calls]
    [('slow_at_the_end', 2)]
    >>> t.summary().groups[0].late.name
    'worker 1'
    """
    return Trace(path, config.count("limit", limit))


class Trace:
    """What was recorded; `trace` makes it.

    Attributes
    ----------
    calls : list of TracedCall
        In the order in which they began: what was called, when, by whom each chunk was done.
    tasks : list of TracedTask
        Calls of functions by workers: `submit`, `map` and the like.
    lost : int
        How many things were not recorded for want of room. What is told is true, but not all.
    """

    def __init__(self, path: Pathname | None, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._recorder: recording.Recorder | None = None
        self._began = self._ended = 0
        self._traced: Traced | None = None

    def __enter__(self) -> Self:
        with _lock:
            if self._recorder is not None:
                raise RuntimeError("this trace was begun before; make another one: sc.trace()")
            self._recorder = _started(self._limit)
            _open.append(self)
        self._began = time.monotonic_ns()
        return self

    def __exit__(self, *_: object) -> None:
        with _lock:
            if self in _open:
                self._stop()
        if self._path is not None:
            self.save(self._path)

    def _stop(self) -> None:
        assert self._recorder is not None  # noqa: S101  # it was begun
        self._ended = time.monotonic_ns()
        self._recorder.take_all()
        _open.remove(self)
        if not _open:
            _finish(self._recorder)

    @property
    def calls(self) -> list[TracedCall]:
        return self._what().calls

    @property
    def tasks(self) -> list[TracedTask]:
        return self._what().tasks

    @property
    def lost(self) -> int:
        return self._what().lost

    def summary(self, *, each: bool = False) -> Summary:
        """Who worked and who waited, as a table that prints; see `docs/trace.md`.

        Parameters
        ----------
        each : bool
            Whether each call has a table of its own; else one for all calls of a kernel in a pool.

        Examples
        --------
        >>> import numpy as np, shmcompute as sc
        >>> with sc.SharedArray(np.zeros(2)) as arr, sc.trace() as t:
        ...     sc.parallel_apply(np.negative, arr, backend="serial")
        >>> group, = t.summary().groups
        >>> group.calls, [row.chunks for row in group.rows]
        (1, [1])
        """
        from shmcompute.diagnostics.trace_summary import summarize  # noqa: PLC0415  # as above

        return summarize(self._what(), each=each)

    def save(self, path: Pathname) -> Path:
        """Write it as a file for https://ui.perfetto.dev or chrome://tracing.

        Parameters
        ----------
        path : path
            ``{pid}`` in it becomes this process's number.

        Returns
        -------
        Path
            The file's.
        """
        from shmcompute.diagnostics.trace_events import write  # noqa: PLC0415  # as above

        return write(self._what(), Path(os.fspath(path).replace("{pid}", str(os.getpid()))))

    def plot(self, path: Pathname | None = None, *, ax: Any = None) -> Any:
        """Draw who did what when, a line for each worker and thread: a Gantt chart.

        Parameters
        ----------
        path : path, optional
            A picture to write: its ending is the format, as matplotlib knows it.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure's.

        Returns
        -------
        Axes

        Raises
        ------
        ImportError
            Without matplotlib.
        """
        from shmcompute.diagnostics.trace_plot import draw  # noqa: PLC0415  # as above

        return draw(self._what(), path, ax)

    def _what(self) -> Traced:
        if self._recorder is None:
            raise RuntimeError("nothing was traced yet: use it in a with statement")
        if self._traced is not None:
            return self._traced
        self._recorder.take_all()
        ended = self._ended or time.monotonic_ns()
        traced = Traced.of(self._recorder, self._began, ended)
        if self._ended:
            self._traced = traced
        return traced

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Trace stays in its process; send what its save() writes")

    def __repr__(self) -> str:
        state = "not begun" if self._recorder is None else "ended" if self._ended else "recording"
        return f"<shmcompute trace, {state}>"


class _Compiler(event.Listener):
    """Notes compilations of Numba's."""

    def __init__(self, recorder: recording.Recorder) -> None:
        self._recorder = recorder
        self._spans: dict[int, list[Span]] = {}  # by thread: one may need another

    def on_start(self, event: Any) -> None:
        name = event.data["dispatcher"].py_func.__qualname__
        spans = self._spans.setdefault(threading.get_ident(), [])
        spans.append(self._recorder.begin("compile", name))

    def on_end(self, event: Any) -> None:
        spans = self._spans.get(threading.get_ident())
        if spans:  # else it began before
            spans.pop().end()


def _started(limit: int) -> recording.Recorder:
    """The recorder of all traces, which is at work from now on."""
    if _open and _open[0]._recorder is recording.recorder and recording.recorder is not None:
        recording.recorder.allow(limit)
        return recording.recorder
    _open.clear()  # a parent's, where this process was forked from it
    recorder = recording.Recorder(limit)
    compiler = _Compiler(recorder)
    event.register("numba:compile", compiler)
    _stop_listening[:] = [
        lambda: event.unregister("numba:compile", compiler),
        events.listen(recorder.happened),
    ]
    recording.recorder = recorder
    return recorder


def _finish(recorder: recording.Recorder) -> None:
    recording.recorder = None
    for stop in _stop_listening:
        stop()
    _stop_listening.clear()
    recorder.stop()


def trace_program(path: str) -> None:
    """Trace this program to its end: ``SHMCOMPUTE_TRACE=path``.

    Programs that it starts, its own workers among them, do not find the setting: they would write
    the same file.
    """
    os.environ.pop("SHMCOMPUTE_TRACE", None)
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"SHMCOMPUTE_TRACE={path!r}: there is no such folder")
    whole = trace(Path(path).absolute())  # the program may go elsewhere
    whole.__enter__()
    pid = os.getpid()

    def save() -> None:
        if os.getpid() == pid:  # not that of a forked child
            whole.__exit__()

    atexit.register(save)

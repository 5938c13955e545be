"""How worker processes start: without the program's main module, in quiet, and soon.

Of the standard library's fork server too: it is asked to import what all workers need, and is
started ahead of the first of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver, resource_tracker, spawn
from multiprocessing.context import BaseContext
from typing import Any

PRELOAD = "shmcompute.backends.processes.preload"
PATIENCE = 1.0  # seconds that a fork server has to end
FORK = 30.0  # seconds that a fork waits for what starts, on a busy machine, too

# Held while something starts: a fork waits for it, since the standard library's own locks would
# stay locked in the child. The thread that has it may fork itself.
_starting = threading.RLock()
_waited = threading.local()  # whether this thread has it because it forks
_server_is_foreign = False


def ahead(start_method: str) -> None:
    """Have the fork server start if it is the one to start workers; they are started later.

    In a thread, where no Ctrl-C comes in between. What is in the way the first worker meets again.
    """
    if usable(start_method) != "forkserver" or multiprocessing.current_process().daemon:
        return
    if _server() is None:
        thread = threading.Thread(target=_run_server, name="shmcompute-launch", daemon=True)
        with suppress(RuntimeError):  # no thread to be had
            thread.start()


def _run_server() -> None:
    with suppress(OSError, EOFError), _as_if_no_main(multiprocessing.get_context("forkserver")):
        forkserver.ensure_running()


def start(process: Any, context: BaseContext) -> None:
    """Start a process of that context, as if the program had no main module."""
    with _as_if_no_main(context):
        _start(process)


def _start(process: Any) -> None:
    """Start it, once more if the fork server was about to end: then there is a new one.

    The standard library's ends when a client gives up half-way, or the kernel takes its memory.
    """
    try:
        process.start()
    except (ConnectionError, EOFError):
        server = _server()
        end = None if server is None else pidfd(server)
        if end is None:
            raise
        try:
            ended = connection.wait([end], PATIENCE)
        finally:
            os.close(end)
        if not ended:
            raise
        process.start()


def _server() -> int | None:
    """The process that is the fork server, if one was started; it may have ended."""
    found: int | None = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    return found


def pidfd(pid: int) -> int | None:
    """A descriptor of a process, where the platform has such and the process is still there."""
    try:
        return os.pidfd_open(pid) if sys.platform == "linux" else None
    except OSError:
        return None


@contextmanager
def _as_if_no_main(context: BaseContext) -> Iterator[None]:
    """Start a process that does not import ``__main__``, so that no script needs a guard.

    ``spawn`` and ``forkserver`` tell the child where the parent's main module is, for it to run it
    again. In this thread, and while this lasts, they tell nothing of it; what a kernel needs of it
    travels by value.
    """
    with _starting, _unwarned(context), _uninterrupted(context):
        if context.get_start_method() == "forkserver":
            _preload()
        told_all = spawn.get_preparation_data  # of nobody who starts at the same time
        spawn.get_preparation_data = _without_main(told_all)  # type: ignore[assignment]  # typed as itself
        try:
            yield
        finally:
            spawn.get_preparation_data = told_all


def _without_main(told_all: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """What tells a child all but where the main module is, in this thread."""
    starter = threading.get_ident()

    def told(name: str) -> dict[str, Any]:
        data = told_all(name)
        if threading.get_ident() == starter:
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    return told


@contextmanager
def _unwarned(context: BaseContext) -> Iterator[None]:
    """Without 3.12's warning of fork in a process with threads: who asks for fork has been told.

    Filters are the whole program's, so not in a thread that starts workers in the background.
    """
    if context.get_start_method() != "fork":
        yield
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        yield


@contextmanager
def _uninterrupted(context: BaseContext) -> Iterator[None]:
    """Keep Ctrl-C from a child until it ignores it, and from us until it is started.

    The mask of signals survives fork and exec. A worker lifts it when it has its handler, the fork
    server when it has imported what it preloads.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    if context.get_start_method() != "fork":
        resource_tracker.ensure_running()  # now: as it starts it lifts the block (3.11)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _preload() -> None:
    """Have the fork server import what workers need, beside what the program has asked for."""
    server: Any = getattr(forkserver, "_forkserver", None)
    asked = [name for name in getattr(server, "_preload_modules", []) if name != "__main__"]
    if PRELOAD not in asked:
        multiprocessing.set_forkserver_preload([*asked, PRELOAD])


def usable(start_method: str) -> str:
    """The start method to use where this one is wanted."""
    # The standard library's fork server serves the process that started it, not its children.
    return "spawn" if start_method == "forkserver" and _server_is_foreign else start_method


def _before_fork() -> None:
    _waited.taken = taken = [False]
    taken[:] = map(_starting.acquire, (True,), (FORK,))  # in one step: see `holding`


def _after_fork_in_parent() -> None:
    if _waited.taken[0]:
        _starting.release()


def _after_fork() -> None:
    """In a forked child the fork server is its parent's."""
    global _starting, _server_is_foreign
    _starting = threading.RLock()
    _server_is_foreign = _server() is not None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
    )

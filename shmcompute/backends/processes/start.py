"""How worker processes start: without the program's main module, in the background, and soon.

The standard library's fork server is asked to import what all workers need, and is started ahead of
the first of them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver, resource_tracker, spawn, util
from multiprocessing.context import BaseContext
from typing import Any

from shmcompute.backends.doorbell import prepare
from shmcompute.system.interrupts import Latch

PRELOAD = "shmcompute.backends.processes.worker.preload"
SERVER_END = 1.0  # seconds that a fork server has to end
FORK = 30.0  # seconds that a fork waits for what starts, on a busy machine, too
PROGRAM_END = 5.0  # seconds that the end of a program waits for what starts

# Held while a process starts. A fork waits for it, since the standard library's own locks would
# stay locked in the child. Reentrant, for the thread that has it may fork itself.
_starting = threading.RLock()
_waited = threading.local()  # whether this thread has it because it forks
_server_is_foreign = False


def start_server_ahead(start_method: str) -> None:
    """Start the fork server, if it is to start workers later, without waiting for it.

    In a thread, which no Ctrl-C interrupts. If this fails, so does the start of the first worker,
    which tells.
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
    """Start it; if the fork server was about to end, wait for that and start it with a new one.

    The standard library's server ends when a client gives up half-way, or for want of memory.
    """
    try:
        process.start()
    except (ConnectionError, EOFError):
        server = _server()
        end = None if server is None else pidfd(server)
        if end is None:
            raise
        try:
            ended = connection.wait([end], SERVER_END)
        finally:
            os.close(end)
        if not ended:
            raise
        process.start()


def _server() -> int | None:
    """The process id of the fork server, if one was started; it may have ended."""
    server: Any = getattr(forkserver, "_forkserver", None)
    return getattr(server, "_forkserver_pid", None)


def pidfd(pid: int) -> int | None:
    """A descriptor of a process, where the platform has such and the process is still there."""
    try:
        return os.pidfd_open(pid) if sys.platform == "linux" else None
    except OSError:
        return None


@contextmanager
def _as_if_no_main(context: BaseContext) -> Iterator[None]:
    """Have processes that start meanwhile not import ``__main__``, so that no script needs a guard.

    ``spawn`` and ``forkserver`` send the child the path of the parent's main module, which the
    child runs again. In this thread, and while this lasts, they leave it out; what a kernel needs
    of the main module travels by value.
    """
    with _starting, _unwarned(context), _uninterrupted(context):
        if context.get_start_method() == "forkserver":
            _preload()
        get_data = spawn.get_preparation_data  # of nobody who starts at the same time
        spawn.get_preparation_data = _without_main(get_data)  # type: ignore[assignment]  # typed as itself
        try:
            yield
        finally:
            spawn.get_preparation_data = get_data


def _without_main(get_data: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """The same preparation data, in this thread without where the main module is."""
    starter = threading.get_ident()

    def get_data_without_main(name: str) -> dict[str, Any]:
        data = get_data(name)
        if threading.get_ident() == starter:
            data.pop("init_main_from_name", None)
            data.pop("init_main_from_path", None)
        return data

    return get_data_without_main


@contextmanager
def _unwarned(context: BaseContext) -> Iterator[None]:
    """Without Python 3.12's warning of fork beside threads: the README warns who asks for fork.

    Not for other start methods, whose processes start in the background: filters of warnings are
    the whole program's.
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


_threads: weakref.WeakKeyDictionary[threading.Thread, Latch] = weakref.WeakKeyDictionary()


def start_in_background(begin: weakref.WeakMethod[Callable[[], None]], begun: Latch) -> None:
    """Call `begin` in a thread, if its pool is still there; open `begun`; prepare the doorbell."""

    def work() -> None:
        try:
            method = begin()
            alive = method is not None
            if method is not None:
                method()
            del method  # a pool that was dropped meanwhile ends here
            begun.open()
            if alive:
                prepare()
        finally:
            begun.open()

    thread = threading.Thread(target=work, name="shmcompute-start", daemon=True)
    _threads[thread] = begun
    try:
        thread.start()
    except RuntimeError:  # no thread to be had: the first call starts them
        begun.open()


def _before_program_ends() -> None:
    """Wait until workers are started: multiprocessing is about to join processes that exist then.

    One that is started later would be left with half of what it is to read, and one that is ended
    meanwhile would be closed under its hands.
    """
    for thread, begun in list(_threads.items()):
        if thread.is_alive():
            begun.wait(PROGRAM_END)


# Not atexit, where multiprocessing's own end would come first: it registers that when it is used.
util.Finalize(None, _before_program_ends, exitpriority=0)


def _before_fork() -> None:
    # What a thread that starts workers has locked would stay locked in the child.
    for thread in list(_threads):
        if thread is not threading.current_thread() and thread.is_alive():
            thread.join(FORK)
    _waited.taken = taken = [False]
    taken[:] = map(_starting.acquire, (True,), (FORK,))  # in one step: see `call_with_lock`


def _after_fork_in_parent() -> None:
    if _waited.taken[0]:
        _starting.release()


def _after_fork() -> None:
    """In a forked child the fork server is its parent's."""
    global _starting, _server_is_foreign
    _starting = threading.RLock()
    _server_is_foreign = _server() is not None


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
)

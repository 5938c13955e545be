"""How worker processes start: without the program's main module, in the background, and soon.

Nothing that starts here looks for modules in the working directory, unless the program does.

The standard library's fork server is asked to import what all workers need, and is started ahead of
the first of them.

The file is long because all that a start must shield a program from stands together.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import connection, forkserver, resource_tracker, spawn, util
from multiprocessing.context import BaseContext
from typing import Any

from shmcompute.backends.doorbell import prepare
from shmcompute.backends.processes import fork_server
from shmcompute.system.interrupts import SLICE, Latch
from shmcompute.system.patching import patched
from shmcompute.system.surroundings import surroundings

BLOCKED = {signal.SIGINT, signal.SIGPIPE}  # while a process starts
FORK = 30.0  # seconds that a fork waits for what starts, on a busy machine, too
# What the standard library tells a new process of, and we do otherwise.
_STANDARD = {"dir", "start_method", "log_level", "init_main_from_name", "init_main_from_path"}
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
    if util.is_exiting() or usable(start_method) != "forkserver":
        return
    if fork_server.pid() is None:
        thread = threading.Thread(target=_run_server, name="shmcompute-launch", daemon=True)
        with suppress(RuntimeError):  # no thread to be had
            thread.start()


def _run_server() -> None:
    with suppress(OSError, EOFError), _prepared(multiprocessing.get_context("forkserver")):
        forkserver.ensure_running()


class GivenUpError(Exception):
    """Who wanted a process does not wait for its start any longer."""


def start(process: Any, context: BaseContext, give_up: Callable[[], bool]) -> None:
    """Start a process of that context, as if the program had no main module.

    Raises
    ------
    GivenUpError
        If `give_up`, which is asked now and then, says so while a fork server does not answer: it
        may be stopped. Should it go on, the process finds that nobody wants it, and ends.
    """
    reader = _unless(give_up)
    with _prepared(context, give_up), _allowed(), patched(forkserver, "read_signed", reader):
        _start(process)


def _unless(give_up: Callable[[], bool]) -> Callable[[Callable[[int], int]], Callable[[int], int]]:
    """Read what a fork server says, which the standard library waits for as long as it takes."""

    def patient(read_signed: Callable[[int], int]) -> Callable[[int], int]:
        def read(fd: int) -> int:
            while not connection.wait([fd], SLICE):
                if give_up():
                    raise GivenUpError
            return read_signed(fd)

        return read

    return patient


@contextmanager
def _allowed() -> Iterator[None]:
    """Have a daemonic process start processes, too: ours end with it, however it ends."""
    settings = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    daemonic = settings.pop("daemon", None)
    try:
        yield
    finally:
        if daemonic is not None:
            settings["daemon"] = daemonic


def _start(process: Any) -> None:
    try:
        process.start()
    except (ConnectionError, EOFError):
        if not fork_server.ends():
            raise
        process.start()  # with a new one


@contextmanager
def _prepared(context: BaseContext, give_up: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Have processes that this thread starts meanwhile be prepared as ours are."""
    forks_ahead = context.get_start_method() == "forkserver"
    served = fork_server.ready() if forks_ahead else nullcontext()
    with _alone(give_up), _unwarned(context), _commanded(context), _uninterrupted(context), served:
        yield


@contextmanager
def _alone(give_up: Callable[[], bool]) -> Iterator[None]:
    """Be the one thread that starts a process. Another one may have to wait for its server."""
    while not _starting.acquire(timeout=SLICE):
        if give_up():
            raise GivenUpError
    try:
        yield
    finally:
        _starting.release()


@contextmanager
def _commanded(context: BaseContext) -> Iterator[None]:
    """Interpreters that are started by a command, and then told what they need, as we would.

    Not so under fork, where the child would keep what is patched.
    """
    if context.get_start_method() == "fork":
        yield
        return
    with (
        patched(util, "spawnv_passfds", _in_no_folder),
        patched(spawn, "get_preparation_data", _preparing),
    ):
        yield


def _in_no_folder(spawnv: Callable[..., int]) -> Callable[..., int]:
    """Start interpreters whose command finds no modules in the working directory."""

    def spawnv_safely(executable: bytes, args: list[Any], fds: Sequence[int]) -> int:
        if "-c" in args:
            at = args.index("-c")
            args = [*args[:at], "-P", "-c", fork_server.with_path(args[at + 1]), *args[at + 2 :]]
        return spawnv(executable, args, fds)

    return spawnv_safely


def _preparing(get_preparation_data: Callable[[str], dict[str, Any]]) -> Callable[[str], Any]:
    """What tells a new process about this one, with what a library has added to it: coverage."""
    if getattr(get_preparation_data, "__module__", "") == spawn.__name__:
        return _preparation

    def with_additions(name: str) -> dict[str, Any]:
        ours, theirs = _preparation(name), {}
        with suppress(AttributeError, ValueError):  # a main module that can't be told
            theirs = get_preparation_data(name)
        return {key: told for key, told in theirs.items() if key not in _STANDARD} | ours

    return with_additions


def _preparation(name: str) -> dict[str, Any]:
    """What a new process is told about this one: all but where its main module is.

    `multiprocessing` would have the child run that again, so each script would need a guard; and
    some main modules can't be told (``python -m pdb``). What a kernel needs of it travels by value.
    """
    around, process = surroundings(), multiprocessing.current_process()
    data: dict[str, Any] = {
        "name": name,
        "authkey": process.authkey,
        "log_to_stderr": util._log_to_stderr,  # type: ignore[attr-defined]  # typeshed's gap
        "sys_path": list(around.path),
        "sys_argv": sys.argv,
        "orig_dir": multiprocessing.process.ORIGINAL_DIR,  # type: ignore[attr-defined]
    }
    if around.folder is not None:
        data["dir"] = around.folder
    # A library's own method, such as loky's, is not known there. To ask without `allow_none` would
    # settle it for the program.
    method = multiprocessing.get_start_method(allow_none=True)
    if method in multiprocessing.get_all_start_methods():
        data["start_method"] = method
    if util._logger is not None:  # type: ignore[attr-defined]
        data["log_level"] = util._logger.getEffectiveLevel()  # type: ignore[attr-defined]
    return data


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

    And keep SIGPIPE, where the program lets it end itself, from us if the child or the server dies.

    The mask of signals survives fork and exec. A worker lifts it when it has its handler, the fork
    server when it has imported what it preloads.
    """
    if context.get_start_method() != "fork":
        resource_tracker.ensure_running()  # now: as it starts it lifts the block (3.11)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def usable(start_method: str) -> str:
    """The start method to use where this one is wanted."""
    if start_method != "forkserver":
        return start_method
    # The standard library's server serves the process that started it, not its children. Sockets
    # that eventlet has patched can't reach one.
    known = start_method in multiprocessing.get_all_start_methods()
    return start_method if known and not _server_is_foreign and fork_server.possible() else "spawn"


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
    _server_is_foreign = fork_server.pid() is not None


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
)

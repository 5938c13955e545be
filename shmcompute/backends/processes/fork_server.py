"""The standard library's fork server: what it imports, where it listens, when another is needed.

It is the program's, too. Who calls these functions is the only one that starts processes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing import connection, forkserver
from typing import Any

from shmcompute.system import private_folder
from shmcompute.system.patching import patched
from shmcompute.system.surroundings import surroundings

PRELOAD = "shmcompute.backends.processes.worker.preload"
END = 1.0  # seconds that a server has to end
LONGEST = 80  # bytes of the socket's folder: a socket's path has at most 103 on some systems

_folders: dict[int, str] = {}  # by process: a forked child's is another
_numbers = count()
_abandoned: list[int] = []  # servers that were left to end with the workers that they started


def pid() -> int | None:
    """The process id of the server, if one was started; it may have ended."""
    pid: int | None = _server()._forkserver_pid
    return pid


def _server() -> Any:
    return forkserver._forkserver


@contextmanager
def ready() -> Iterator[None]:
    """Have a server that starts meanwhile be as ours are, and none stay that can't be reached."""
    _preload()
    _abandon_if_unreachable()
    with patched(connection, "arbitrary_address", _short):
        yield


def _preload() -> None:
    """Have the server import what workers need, beside what the program has asked for."""
    asked = [name for name in _server()._preload_modules if name != "__main__"]
    if PRELOAD not in asked:
        multiprocessing.set_forkserver_preload([*asked, PRELOAD])


def _short(arbitrary_address: Callable[[str], str]) -> Callable[[str], str]:
    """Addresses in a folder of ours: that of the temp directory may be too long for a socket."""

    def address(family: str) -> str:
        if family != "AF_UNIX":
            return arbitrary_address(family)
        return os.path.join(_folder(), f"fork-server-{next(_numbers)}")

    return address


def possible() -> bool:
    """Whether there is a place where a server can listen."""
    try:
        _folder()
    except OSError:
        return False
    return True


def _folder() -> str:
    """The folder of this process's sockets; another one if somebody swept it away."""
    folder = _folders.get(os.getpid())
    if folder is None or not os.path.isdir(folder):
        folder = _folders[os.getpid()] = private_folder.make(LONGEST)
    return folder


def _abandon_if_unreachable() -> None:
    """Start another server the next time if somebody swept away the socket of this one."""
    server = _server()
    address = server._forkserver_address
    if server._forkserver_pid is None or address is None or os.path.exists(address):
        return
    with server._lock:
        _abandoned.append(server._forkserver_pid)
        os.close(server._forkserver_alive_fd)
        server._forkserver_pid = server._forkserver_alive_fd = server._forkserver_address = None
    _reap_abandoned()


def _reap_abandoned() -> None:
    for pid in _abandoned.copy():
        with suppress(ChildProcessError):
            if not os.waitpid(pid, os.WNOHANG)[0]:
                continue
        _abandoned.remove(pid)


def with_path(command: str) -> str:
    """The server's command with our import path, which 3.11 and 3.12 send and then forget.

    Set once the command has imported what is the standard library's.
    """
    if "multiprocessing.forkserver" not in command:
        return command
    path = list(surroundings().path)
    return command.replace("; ", f"; import sys; sys.path[:] = {path!r}; ", 1)


def ends() -> bool:
    """Wait a moment for the end of the server; whether it came.

    The standard library's ends when a client gives up half-way, or for want of memory.
    """
    server = pid()
    end = None if server is None else pidfd(server)
    if end is None:
        return False
    try:
        return bool(connection.wait([end], END))
    finally:
        os.close(end)


def pidfd(pid: int) -> int | None:
    """A descriptor of a process, where the platform has such and the process is still there."""
    try:
        return os.pidfd_open(pid) if sys.platform == "linux" else None
    except OSError:
        return None

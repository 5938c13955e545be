"""Who still uses a segment: a shared ``flock``, held as long as the mapping lives.

The kernel drops a lock when its last holder dies, however it dies; nobody can forget it. On Linux
the lock is on the segment itself: ``mmap`` duplicates the descriptor, and a duplicate shares the
lock, so mapping and lock end together and cost one descriptor. Where shared memory takes no
``flock`` (macOS) a lock file stands in, in a folder that is ours alone; that folder then is also
the list of the segments there are.

Only ``fcntl`` systems are served; elsewhere shared memory ends with its last handle.
"""

from __future__ import annotations

import fcntl
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from shmcompute.config import setting
from shmcompute.errors import StorageError
from shmcompute.system.private_folder import users_folder

HELD = "held by one"  # a folder, named as no segment can be


def by_file() -> bool:
    """Whether lock files stand in for locks on the segments themselves."""
    return sys.platform != "linux" or setting("LOCK_FILES") == "1"


def folder() -> Path:
    """The folder of lock files; made at first use."""
    try:
        return users_folder(tempfile.gettempdir())
    except PermissionError as error:
        raise StorageError(str(error)) from error


def hold(fd: int, name: str) -> int | None:
    """Mark the segment behind `fd` as used, waiting for a reaper that looks at it.

    Returns
    -------
    int or None
        A descriptor that must stay open as long as the mapping, or None if the mapping's own does.
    """
    if sys.platform == "linux":  # beside lock files, too: other programs look for this one
        fcntl.flock(fd, fcntl.LOCK_SH)
    if not by_file():
        return None
    while True:
        lock = _lock_file(name)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _same(lock, folder() / name):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # a reaper removed the file between open and flock: make it anew


def seize(fd: int, name: str) -> int | None:
    """The descriptor of an exclusive lock on a segment that nobody uses; None if somebody does.

    Close what is returned after the name is gone; until then nobody can attach.
    """
    lock = _lock_file(name) if by_file() else os.dup(fd)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise


def forget(name: str) -> None:
    """The name is gone: so are its lock files, if it has any."""
    if by_file():
        for gone in (folder() / name, folder() / HELD / name):
            with suppress(OSError):  # it is locked by nobody soon, and a reaper sweeps it away
                gone.unlink(missing_ok=True)


def held_file(name: str) -> int:
    """The file that is locked in a segment's stead by who wants it for himself; made at first use.

    Not the one above: where these are needed, the two kinds of lock exclude each other.
    """
    (folder() / HELD).mkdir(mode=0o700, exist_ok=True)
    return _lock_file(f"{HELD}/{name}")


def _lock_file(name: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    return os.open(folder() / name, flags, 0o600)


def _same(fd: int, path: Path) -> bool:
    try:
        here, there = os.fstat(fd), path.stat()
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)

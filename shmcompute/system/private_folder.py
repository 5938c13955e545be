"""A folder of this process alone, which goes with it, or is removed by the next program.

It lies in a folder of this user's in a place for temporary files. The process holds a lock on it:
so a folder that can be locked was left by one that was killed (see `reap`).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import util
from pathlib import Path

PREFIX = "of-one-process-"
_LAST = -100  # when `multiprocessing` removes its own


def users_folder(place: str) -> Path:
    """A folder for all of a user's processes in a place for temporary files, mode 0700.

    Made at first use.

    Raises
    ------
    PermissionError
        If what has its name is a link, another user's, or open to others; it says what.
    """
    path = Path(place) / f"shmcompute-{os.geteuid()}"
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(
            f"{path} must be a folder of ours with mode 0700, but it is "
            f"{stat.filemode(status.st_mode)} of user {status.st_uid}: remove it, or set TMPDIR to "
            "a folder of your own"
        )
    return path


def make(longest: int) -> str:
    """A new folder whose path has at most so many bytes.

    Raises
    ------
    OSError
        If there is no place for it.
    """
    for place in _places():
        with suppress(OSError):
            path = tempfile.mkdtemp(prefix=PREFIX, dir=users_folder(place))
            if len(os.fsencode(path)) <= longest and _keep(path):
                return path
            os.rmdir(path)
    raise OSError(
        f"no folder can be made whose path has at most {longest} bytes, in any of "
        f"{', '.join(_places())}: set TMPDIR to a folder that can be written"
    )


def reap() -> list[str]:
    """Remove the folders that killed processes of this user left; what was removed."""
    left = [path for place in _places() for path in _left(Path(place))]
    for path in left:
        shutil.rmtree(path, ignore_errors=True)
    return left


def _places() -> list[str]:
    """Where a folder may be made, the best first."""
    places = [os.environ.get("XDG_RUNTIME_DIR") or "", "/tmp", "/var/tmp", "/dev/shm"]  # noqa: S108
    with suppress(OSError):  # none can be written
        places.insert(0, tempfile.gettempdir())
    return list(dict.fromkeys(place for place in places if os.path.isabs(place)))


def _keep(path: str) -> bool:
    """Hold a lock on a folder, and remove it when this process ends; False if it is gone."""
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_SH)
    if not os.path.isdir(path):  # who reaps was faster
        os.close(lock)
        return False
    util.Finalize(None, _remove, (path,), exitpriority=_LAST)
    return True


def _remove(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):  # others need it
        os.rmdir(os.path.dirname(path))


def _left(place: Path) -> Iterator[str]:
    with suppress(OSError), os.scandir(place / f"shmcompute-{os.geteuid()}") as entries:
        for entry in entries:
            ours = entry.name.startswith(PREFIX) and entry.is_dir(follow_symlinks=False)
            if ours and _lockable(entry.path):
                yield entry.path


def _lockable(path: str) -> bool:
    """Whether nobody holds a lock on a folder."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(lock)

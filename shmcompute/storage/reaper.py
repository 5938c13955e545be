"""Removes what nobody holds: segments whose processes all died without a word.

Called by the first creation in each process and by ``python -m shmcompute gc``. A segment is an
orphan if an exclusive lock on it can be had, for every process that maps it holds a shared one
(see `liveness`). While the reaper holds its lock nobody can attach, so what it removes is unused.
Never another user's, and nothing that was not made as a segment (see `shm.is_ours`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from shmcompute import events
from shmcompute.errors import SegmentFormatError, SegmentNotFoundError, ShmComputeError
from shmcompute.storage import liveness, shm, shm_space
from shmcompute.storage.layout import Layout
from shmcompute.storage.names import HIDDEN, check_name
from shmcompute.system import private_folder
from shmcompute.system.file_locks import file_id


@dataclass(frozen=True)
class SegmentInfo:
    """One segment of ours in the namespace."""

    name: str
    size: int
    alive: bool
    layout: Layout | None  # None where its trailer is damaged
    file: tuple[int, int] = (0, 0)  # device and inode

    @property
    def hidden(self) -> bool:
        """Whether its array was closed, and its memory is kept or still viewed."""
        return self.name.startswith(HIDDEN)


def list_segments() -> Iterator[SegmentInfo]:
    """Every segment of this user, alive or orphaned."""
    for name in _names():
        segment = _inspect(name, remove=False)
        if segment is not None:
            yield segment


def reap(over: Callable[[list[str]], Iterable[str]] = iter) -> list[SegmentInfo]:
    """Remove every orphan of this user, and its folders; which segments were removed.

    Parameters
    ----------
    over : callable
        Goes through the names, and may show how far it is.
    """
    private_folder.reap()
    inspected = [_inspect(name, remove=True) for name in over(_names())]
    reaped = [segment for segment in inspected if segment is not None and not segment.alive]
    for segment in reaped:
        events.tell("segment_reaped", name=segment.name, size=segment.size)
    return reaped


def _names() -> list[str]:
    if shm.unavailable() is not None:
        return []
    folder = liveness.folder() if liveness.by_file() else shm_space.FOLDER
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if _candidate(entry)]
    except OSError:
        return []


def _candidate(entry: os.DirEntry[str]) -> bool:
    try:
        check_name(entry.name)
        status = entry.stat(follow_symlinks=False)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _inspect(name: str, *, remove: bool) -> SegmentInfo | None:
    """What one name is, if it is ours; removed first if nobody uses it and `remove` is set."""
    try:
        fd = shm.open_segment(name)
    except SegmentNotFoundError:
        if remove:
            _remove_stale_lock(name)
        return None
    except ShmComputeError:
        return None
    try:
        if not shm.is_ours(fd, name):
            return None
        size, layout = os.fstat(fd).st_size, _layout(fd, name)
        lock = liveness.seize(fd, name)
        try:
            if lock is not None and remove and (status := os.fstat(fd)).st_nlink:
                shm.remove(name, status.st_ino)
            return SegmentInfo(name, size, lock is None, layout, file_id(fd))
        finally:
            if lock is not None:
                os.close(lock)
    except OSError:
        return None  # gone, or out of reach, while we looked
    finally:
        os.close(fd)


def _layout(fd: int, name: str) -> Layout | None:
    try:
        return shm.read_layout(fd, name)
    except SegmentFormatError:
        return None


def _remove_stale_lock(name: str) -> None:
    """Remove a lock file whose segment is gone."""
    lock = liveness.seize(-1, name) if liveness.by_file() else None
    if lock is not None:
        if not shm.exists(name):
            liveness.forget(name)
        os.close(lock)

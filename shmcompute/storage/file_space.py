"""Room in a file that is to be mapped: reserved before it is used, and how much of it is free.

`ftruncate` reserves nothing, and a write through a mapping that finds the file system full dies of
SIGBUS.
"""

from __future__ import annotations

import os
from pathlib import Path

from shmcompute.system import huge_pages

STEP = 256 << 20  # reserve in steps, so that a signal never restarts a long reservation


def reserve(fd: int, nbytes: int) -> None:
    """Have a file be so long, with room of its own; OSError if there is not that much."""
    os.ftruncate(fd, nbytes)
    huge_pages.fill(fd, nbytes)
    if hasattr(os, "posix_fallocate"):
        for start in range(0, nbytes, STEP):
            os.posix_fallocate(fd, start, min(STEP, nbytes - start))


def free_bytes(folder: Path | str) -> int | None:
    """Bytes free in a folder, or None where its file system does not tell."""
    try:
        filesystem = os.statvfs(folder)
    except OSError:
        return None
    return filesystem.f_bavail * filesystem.f_frsize if filesystem.f_blocks else None

"""Room for segments: how it is reserved before it is used, and what is said where there is none."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

from shmcompute.errors import StorageError, StorageFullError
from shmcompute.storage import file_space
from shmcompute.system import limits, memory

FOLDER = Path("/dev/shm")  # noqa: S108  # where Linux has its shared memory
LARGE = 16 << 20  # bytes of a reservation that is worth a look at control groups


def reserve(fd: int, nbytes: int) -> None:
    """Have a new segment be so long, with memory of its own.

    Raises
    ------
    StorageFullError
        If there is not that much.
    """
    _check_free(nbytes)
    try:
        file_space.reserve(fd, nbytes)
    except OSError as error:
        raise _full(nbytes, error) from error


def free_bytes() -> int | None:
    """Bytes free for segments, or None where the platform does not tell."""
    return file_space.free_bytes(FOLDER)


def _check_free(asked: int) -> None:
    # Fail before memory is taken rather than after most of it was.
    left = memory.reservable() if asked >= LARGE else None
    if left is not None and asked > left:
        raise StorageFullError(
            f"shared memory of {asked} bytes is more than the {left} that this process's control "
            "groups grant, and would have somebody killed. Close arrays, raise the limit (docker "
            'run --memory=...), or use storage="file"'
        )
    free = free_bytes() if sys.platform == "linux" else None
    if free is not None and asked > free:
        raise _full(asked, None)


def _full(asked: int, error: OSError | None) -> StorageError:
    if error is not None and error.errno not in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
        return StorageError(f"shared memory of {asked} bytes could not be reserved: {error}")
    limit = None if error is None else limits.explain(error)
    if limit is not None:
        return StorageFullError(f"shared memory of {asked} bytes could not be had: {limit}")
    free = free_bytes()
    return StorageFullError(
        f"shared memory is full: asked for {asked} bytes, "
        f"{'unknown' if free is None else free} free in {FOLDER}. Close arrays, remove orphans "
        "(python -m shmcompute gc), enlarge it (docker run --shm-size=2g), or use "
        'storage="array" or storage="file"'
    )

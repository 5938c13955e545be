"""Shared memory: where it is, how much there is, and what the kernel can tell of it."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from shmcompute.arrays import SharedArray
from shmcompute.diagnostics import huge_pages as huge
from shmcompute.diagnostics.finding import BROKEN, WARNING, Finding, human, judged
from shmcompute.errors import ShmComputeError
from shmcompute.storage import exclusive, reaper, segment_cache, shm, shm_space

SMALL = 256 << 20  # bytes: Docker gives 64 MiB
_LARGER = "docker run --shm-size=2g; in Kubernetes an emptyDir of medium Memory; else remount it"


def folder() -> Iterator[Finding]:
    """Whether there is shared memory, how large it is, and who may use it."""
    where, reason = str(shm_space.FOLDER), shm.unavailable()
    if reason is not None:
        remedy = f'arrays are made with storage="array", slower to share; else: {_LARGER}'
        yield Finding(where, reason, WARNING, remedy)
        return
    if (free := shm_space.free_bytes()) is None:
        yield Finding(where, "it does not tell its size")
        return
    total = psutil.disk_usage(where).total
    yield judged(
        where,
        f"{human(total)}, {human(free)} free",
        warn=total < SMALL or free < total // 10,
        remedy=f"{_LARGER}; what is left behind goes by: python -m shmcompute gc",
    )
    yield _mode(shm_space.FOLDER)


def _mode(where: Path) -> Finding:
    mode = stat.S_IMODE(where.stat().st_mode)
    return judged(
        f"{where} mode",
        f"{mode:04o}",
        warn=bool(mode & 0o002) and not mode & stat.S_ISVTX,
        remedy=f"others can remove your arrays: chmod 1777 {where}",
    )


def segment() -> Iterator[Finding]:
    """Whether an array can be made, attached by its name, seen alive, and locked."""
    if shm.unavailable() is not None:
        return
    try:
        with SharedArray.full(1000, 7.0, storage="shm") as array:
            yield _alive(array)
            yield _locks(array)
            with SharedArray.attach(array.name) as again:
                if not np.array_equal(again.array, array.array):
                    yield Finding("attach", "another content than was written", BROKEN)
    except (ShmComputeError, OSError) as error:
        remedy = 'mend what it says; storage="array" and storage="file" do without'
        yield Finding("segment", f"can't be made: {error}", BROKEN, remedy)


def _alive(array: SharedArray) -> Finding:
    found = [one for one in reaper.list_segments() if one.name == array.name]
    if found and found[0].alive:
        return Finding("flock", "a segment is seen to be alive while a process has it")
    return Finding(
        "flock",
        "a segment that is in use looks as if it were not: gc would remove it",
        BROKEN,
        "set SHMCOMPUTE_LOCK_FILES=1 for all processes that share arrays",
    )


def _locks(array: SharedArray) -> Finding:
    try:
        with array.lock(timeout=1):
            return Finding("locks", "arr.lock() ends with its holder")
    except (ShmComputeError, OSError, TimeoutError) as error:
        return Finding("locks", f"arr.lock() fails: {error}", WARNING, "use sc.atomic_add")


def leases() -> Iterator[Finding]:
    """Whether memory of closed arrays can be used again: the kernel must tell who has it."""
    if shm.unavailable() is not None or not exclusive.SUPPORTED:
        return
    remedy = "sysctl fs.leases-enable=1; else each new array pays for new memory, 0.5 s a GiB"
    try:
        with tempfile.TemporaryFile(dir=shm_space.FOLDER) as file:
            told = exclusive.is_exclusive(file.fileno())
    except OSError as error:
        yield Finding("leases", f"not to be had: {error}", WARNING, remedy)
        return
    limit = segment_cache.limit(shm_space.FOLDER)
    found = f"up to {human(limit)} of closed arrays are kept for new ones"
    yield judged("leases", found if told else "refused", warn=not told, remedy=remedy)


def memfd() -> Iterator[Finding]:
    """Whether memory without a name is to be had, in which caller and workers meet."""
    try:
        os.close(os.memfd_create("shmcompute-doctor", os.MFD_CLOEXEC))
    except (AttributeError, OSError) as error:
        remedy = f"a file in {tempfile.gettempdir()} stands in: let TMPDIR be in memory"
        yield Finding("memfd", f"not to be had: {error}", WARNING, remedy)
    else:
        yield Finding("memfd", "available")


def huge_pages() -> Iterator[Finding]:
    """Whether large arrays get huge pages; a fifth faster where memory is the limit."""
    (_, found), *remedies = huge.facts(shm_space.FOLDER)
    slow = found.startswith(("refused", "switched off"))
    told = "; ".join(f"{how.strip()}: {line}" for how, line in remedies)
    yield judged("huge pages", found, warn=slow, remedy=told)


def leftovers() -> Iterator[Finding]:
    """What processes that died have left."""
    orphans = [one for one in reaper.list_segments() if not one.alive]
    size = human(sum(one.size for one in orphans))
    yield judged(
        "leftovers",
        f"{len(orphans)} segments of {size}" if orphans else "none",
        warn=bool(orphans),
        remedy="python -m shmcompute gc",
    )

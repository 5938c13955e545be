"""How much memory may still be taken: of the machine, the control group, a folder in memory."""

from __future__ import annotations

import os
from pathlib import Path

from shmcompute.system import cgroup


def limit(root: Path = cgroup.ROOT) -> int | None:
    """Bytes granted by the control groups; None where that is all the machine has."""
    import psutil  # noqa: PLC0415  # 10 ms, for what seldom comes

    granted = cgroup.memory_limit(root)
    # Version 1 writes an enormous number where there is no limit.
    return granted if granted is not None and granted < psutil.virtual_memory().total else None


def available(root: Path = cgroup.ROOT) -> int:
    """Bytes that may be taken without swapping, nor beyond a control group's limit."""
    import psutil  # noqa: PLC0415

    free, granted = int(psutil.virtual_memory().available), cgroup.memory_free(root)
    return free if granted is None else min(free, granted)


def free_in(folder: Path, root: Path = cgroup.ROOT) -> int:
    """Bytes that may be taken in a folder that is in memory; 0 if unknown (Linux only).

    Asked at each close of a large array, within garbage collection too: so without `psutil`.
    """
    try:
        here, machine, granted = os.statvfs(folder), _meminfo(root), cgroup.memory_free(root)
    except (OSError, ValueError):
        return 0
    free = [machine, *([] if granted is None else [granted])]
    if here.f_blocks:  # 0: this file system has no size of its own
        free.append(here.f_bavail * here.f_frsize)
    return max(0, min(free))


def reservable(root: Path = cgroup.ROOT) -> int | None:
    """Bytes that control groups let this process take and keep, swap included; None without limits.

    Who takes more is killed.
    """
    left = cgroup.memory_left(root)
    if left is None:
        return None
    try:
        return left + _meminfo(root, "SwapFree:")
    except (OSError, ValueError):
        return left


def _meminfo(root: Path, what: str = "MemAvailable:") -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) << 10
    return 0

"""How many cores this process was granted, which is seldom how many the machine has."""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def seen() -> int:
    """Cores of the machine."""
    return os.cpu_count() or 1


@functools.cache
def cache(root: Path = Path("/")) -> int:
    """Bytes of a core's second-level cache; 1 MiB where the system does not tell."""
    for index in sorted(root.glob("sys/devices/system/cpu/cpu0/cache/index*")):
        try:
            if (index / "level").read_text().strip() == "2":
                size = (index / "size").read_text().strip()
                return int(size.rstrip("KM")) << {"K": 10, "M": 20}.get(size[-1], 0)
        except (OSError, ValueError):
            continue
    return 1 << 20


def granted(root: Path = Path("/")) -> int:
    """Cores that this process may use: affinity and cgroup quota respected, at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        allowed = seen()
    quota = cgroup_quota(root)
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def pin(task: int, number: int) -> None:
    """Bind a process or thread to the `number`-th of the cores that it may use.

    Raises
    ------
    NotImplementedError
        Where the platform can't.
    """
    check_pinning()
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(task, {allowed[number % len(allowed)]})


def leave_mine(tasks: Iterable[int]) -> None:
    """Move processes or threads off the core that this thread is on; they may come back.

    The scheduler wakes a sleeper near its waker, and two that take turns on one core look to it as
    if one core were enough for them.
    """
    mine = {_libc().sched_getcpu()}
    for task in tasks:
        with suppress(OSError):  # it is gone
            allowed = os.sched_getaffinity(task)
            if allowed - mine:
                os.sched_setaffinity(task, allowed - mine)
                os.sched_setaffinity(task, allowed)


def bring(task: int) -> None:
    """Move a process or thread to the core that this thread is on and about to leave.

    The scheduler may queue one that was woken behind another, and let the core of its waker idle.
    """
    mine = {_libc().sched_getcpu()}
    with suppress(OSError):  # it is gone
        allowed = os.sched_getaffinity(task)
        if mine < allowed:
            os.sched_setaffinity(task, mine)
            os.sched_setaffinity(task, allowed)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def check_pinning() -> None:
    """Raise NotImplementedError where the platform can't bind a process to a core."""
    if not hasattr(os, "sched_setaffinity"):
        raise NotImplementedError("pin=True: this platform can't bind a process to a core")


def cgroup_quota(root: Path = Path("/")) -> float | None:
    """The tightest CPU quota on the way from this process's cgroup to the root, in cores."""
    quotas = [quota for group in _groups(root, "cpu") if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many of this process's cgroup were killed for want of memory; None if nobody counts."""
    for group in _groups(root, "memory"):
        for name in ("memory.events", "memory.oom_control"):  # versions 2 and 1
            with suppress(OSError, ValueError, KeyError):
                counts = dict(line.split() for line in (group / name).read_text().splitlines())
                return int(counts["oom_kill"])
    return None


def _groups(root: Path, controller: str) -> list[Path]:
    """Folders of this process's cgroup and of all above it, version 2 and 1."""
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # In a container the path may be the host's and not exist here; the walk up ends at base.
        top = base / controllers if controllers else base
        here = top / path.lstrip("/")
        folders += [here, *(up for up in here.parents if up == top or top in up.parents)]
    return folders


def _quota(group: Path) -> float | None:
    """Cores granted by one cgroup, or None where it sets no limit."""
    try:
        if (group / "cpu.max").exists():
            limit, period = (group / "cpu.max").read_text().split()
        else:
            limit = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return None if limit in ("max", "-1") else int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None

"""How many cores this process was granted, which is seldom how many the machine has."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from shmcompute.system import cgroup
from shmcompute.system.libc import libc


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
    except AttributeError:  # macOS
        allowed = seen()
    quota = cgroup.cpu_quota(root)
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


def evict_from_my_core(tasks: Iterable[int]) -> None:
    """Move processes or threads off the core that this thread is on; they may come back.

    The scheduler wakes a sleeper near its waker, and two that take turns on one core look to it as
    if one core were enough for them.
    """
    mine = {libc().sched_getcpu()}
    for task in tasks:
        with suppress(OSError):  # it is gone
            allowed = os.sched_getaffinity(task)
            if allowed - mine:
                os.sched_setaffinity(task, allowed - mine)
                os.sched_setaffinity(task, allowed)


def migrate_to_my_core(task: int) -> None:
    """Move a process or thread to the core that this thread is on and about to leave.

    The scheduler may queue one that was woken behind another, and let the core of its waker idle.
    """
    mine = {libc().sched_getcpu()}
    with suppress(OSError):  # it is gone
        allowed = os.sched_getaffinity(task)
        if mine < allowed:
            os.sched_setaffinity(task, mine)
            os.sched_setaffinity(task, allowed)


def check_pinning() -> None:
    """Raise NotImplementedError where the platform can't bind a process to a core."""
    if not hasattr(os, "sched_setaffinity"):
        raise NotImplementedError("pin=True: this platform can't bind a process to a core")

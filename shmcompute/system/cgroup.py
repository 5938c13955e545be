"""What Linux control groups grant this process: cores, memory, and who was killed for want of it.

A limit may stand at the process's own group or at any group above it, and the tightest counts.
Version 2 has one tree, version 1 a tree for each controller; a host may have both. In a container
the path in ``/proc/self/cgroup`` may be the host's and not exist here; then the walk up ends at the
root of the tree, which is the container's own group.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

ROOT = Path("/")
# In ``memory.stat``: pages of files, which the kernel drops when memory is short; version 2 and 1.
_DROPPED = (
    {"inactive_file", "active_file"},
    {"total_inactive_file", "total_active_file"},
)
# File names of a memory limit and of what is in use, in version 2 and 1.
_MEMORY = (
    ("memory.max", "memory.current"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
)


def cpu_quota(root: Path = ROOT) -> float | None:
    """The tightest CPU quota, in cores; None if there is none."""
    quotas = map(_group_quota, _groups("cpu", root))
    return min((quota for quota in quotas if quota is not None), default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """The tightest memory limit, in bytes; None if there is none."""
    return min((limit for limit, _ in _memory(root)), default=None)


def memory_free(root: Path = ROOT) -> int | None:
    """Bytes left below the memory limits; None if there are none."""
    return min((max(0, limit - used) for limit, used in _memory(root)), default=None)


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that may be taken and kept before the limits have somebody killed; None without any.

    More than `memory_free`: the groups count pages of files, too, which the kernel drops first.
    """
    left = [
        _number(group / limit) - _number(group / used) + _dropped(group, names)
        for group in _groups("memory", root)
        for (limit, used), names in zip(_MEMORY, _DROPPED, strict=True)
        if _number(group / limit)
    ]
    return max(0, min(left)) if left else None


def oom_kills(root: Path = ROOT) -> int | None:
    """How many of this process's group were killed for want of memory; None if nobody counts."""
    for group in _groups("memory", root):
        for name in ("memory.events", "memory.oom_control"):  # versions 2 and 1
            with suppress(OSError, ValueError, KeyError):
                counts = dict(line.split() for line in (group / name).read_text().splitlines())
                return int(counts["oom_kill"])
    return None


def _groups(controller: str, root: Path) -> list[Path]:
    """Folders of this process's group and of all above it, in both versions."""
    folders: list[Path] = []
    for top, path in _trees(controller, root):
        group = top / path.lstrip("/")
        folders += [group, *(up for up in group.parents if up == top or top in up.parents)]
    return folders


def _trees(controller: str, root: Path) -> Iterable[tuple[Path, str]]:
    """The root of each tree that has this controller, and the path of our group in it."""
    base = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = ["0::/", f"1:{controller}:/"]  # no /proc: what is mounted may be our own group
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield base, path
        elif controller in controllers.split(","):
            yield base / controllers, path


def _group_quota(group: Path) -> float | None:
    """The CPU quota of one group, in cores; None where it sets none."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _memory(root: Path) -> Iterable[tuple[int, int]]:
    """Limit and use of each group that has a limit."""
    for group in _groups("memory", root):
        for limit, used in _MEMORY:
            with suppress(OSError, ValueError):  # no such file, or "max"
                yield int((group / limit).read_text()), _number(group / used)


def _dropped(group: Path, names: set[str]) -> int:
    try:
        lines = (group / "memory.stat").read_text().splitlines()
        return sum(int(number) for name, number in map(str.split, lines) if name in names)
    except (OSError, ValueError):
        return 0


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return 0

"""How much memory may still be taken: of the machine, the container, and a folder in memory."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = (  # limit and use, in version 2 and 1
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def free(folder: Path, root: Path = Path("/")) -> int:
    """Bytes that can be taken in `folder` without hurting anybody; 0 if unknown (Linux only)."""
    try:
        found = os.statvfs(folder)
        here = found.f_bavail * found.f_frsize if found.f_blocks else _available(root)
        return max(0, min(here, _available(root), _granted(root)))
    except (OSError, ValueError):
        return 0


def _available(root: Path) -> int:
    for line in (root / "proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return 0


def _granted(root: Path) -> int:
    """What the cgroup leaves; very much where it sets no limit."""
    for limit, used in _CGROUP:
        try:
            said = (root / "sys/fs/cgroup" / limit).read_text().strip()
            if said.isdigit():
                return int(said) - int((root / "sys/fs/cgroup" / used).read_text())
        except OSError:
            continue
    return 1 << 62

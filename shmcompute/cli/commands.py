"""What the command line tells: of this machine, and of the segments on it."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Collection, Sequence

import psutil

from shmcompute import __version__, pool
from shmcompute.storage import reaper, segment_cache, shm
from shmcompute.system import atomic_words, cgroup, cores, memory

PACKAGES = ("numpy", "numba", "llvmlite", "psutil", "cloudpickle", "threadpoolctl", "tqdm")
Fact = tuple[str, str]


def info() -> int:
    """Tell versions, what this machine offers, and what is set."""
    say(*table([*versions(), *machine(), *_storages(), *_workers(), *_settings()]))
    return 0


def ls() -> int:
    """List the segments of this user."""
    rows = [_row(found) for found in sorted(reaper.listed(), key=_name)]
    if rows:
        say(*table([("name", "shape", "dtype", "size", "state"), *rows], right=(3,)))
    else:
        say("no segments: nothing of yours is in shared memory")
    return 0


def gc() -> int:
    """Remove segments that no process holds, and list them."""
    removed = sorted(reaper.reap(), key=_name)
    alive = sum(found.alive for found in reaper.listed())
    if removed:
        rows = [(found.name, human(found.size)) for found in removed]
        say(*table([("removed", "size"), *rows], right=(1,)))
        say(f"{human(sum(found.size for found in removed))} given back; {alive} alive left alone")
    else:
        say(f"no orphans; {alive} alive left alone")
    return 0


def say(*lines: str) -> None:
    """Write lines to stdout, now: a forked worker must not inherit and repeat them."""
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def table(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lines with columns as wide as their widest cell.

    Parameters
    ----------
    rows : sequence of sequences of str
        All of one length.
    right : collection of int
        Numbers of the columns that are flush right.

    Examples
    --------
    >>> print(*table([("name", "size"), ("a", "10")], right=(1,)), sep="|")
    name  size|a       10
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def padded(number: int, cell: str) -> str:
        return cell.rjust(widths[number]) if number in right else cell.ljust(widths[number])

    return ["  ".join(padded(*cell) for cell in enumerate(row)).rstrip() for row in rows]


def human(size: float) -> str:
    """Bytes in a unit that reads well.

    Examples
    --------
    >>> human(512), human(3 << 19)
    ('512 B', '1.5 MiB')
    """
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def versions(packages: Sequence[str] = PACKAGES) -> list[Fact]:
    """What runs: this package, Python, and those packages."""
    python = f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    rest = [(package, _version(package)) for package in packages]
    return [("shmcompute", __version__), ("Python", python), *rest]


def machine() -> list[Fact]:
    """Where it runs: platform, cores, memory."""
    quota, machine_memory, limit = cgroup.cpu_quota(), psutil.virtual_memory(), memory.limit()
    limited = "none" if limit is None else human(limit)
    quoted = "none" if quota is None else f"{quota:g}"
    return [
        ("platform", platform.platform()),
        ("cores", f"{cores.seen()} seen, {cores.granted()} granted (cgroup quota: {quoted})"),
        (
            "memory",
            f"{_free(machine_memory.total, machine_memory.available)} (cgroup limit: {limited})",
        ),
        (str(shm.FOLDER), _folder()),
    ]


def _name(found: reaper.Found) -> str:
    return found.name


def _row(found: reaper.Found) -> tuple[str, ...]:
    state = "orphaned" if not found.alive else "warm" if found.hidden else "alive"
    if found.layout is None:
        return found.name, "-", "-", human(found.size), f"{state}, damaged"
    return found.name, str(found.layout.shape), str(found.layout.dtype), human(found.size), state


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _free(total: float, free: float) -> str:
    return f"{human(total)}, {human(free)} free"


def _folder() -> str:
    free = shm.free_bytes()
    if free is None:
        return "no such folder, or it does not tell its size"
    return _free(psutil.disk_usage(str(shm.FOLDER)).total, free)


def _storages() -> list[Fact]:
    reason = shm.unavailable()
    return [
        ("storage shm", "available" if reason is None else f"not available: {reason}"),
        ("storage file", "available, at a path of your choice"),
        ("storage array", "available"),
        (
            "kept warm",
            _told(lambda: f"up to {human(segment_cache.limit(shm.FOLDER))} of closed arrays"),
        ),
    ]


def _workers() -> list[Fact]:
    default = pool.default_start_method()
    methods = ", ".join(multiprocessing.get_all_start_methods())
    return [
        ("start methods", f"{methods}; default {default}"),
        ("waiting", _told(lambda: "futex" if atomic_words.waits_by_futex() else "poll")),
    ]


def _told(fact: Callable[[], str]) -> str:
    """A fact that a setting decides, or what is wrong with the setting."""
    try:
        return fact()
    except ValueError as error:
        return f"unknown: {error}"


def _settings() -> list[Fact]:
    told = sorted(fact for fact in os.environ.items() if fact[0].startswith("SHMCOMPUTE_"))
    return told or [("settings", "no SHMCOMPUTE_* is set")]

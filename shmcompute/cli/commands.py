"""The commands `info`, `ls` and `gc`, and how their output is formatted."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter

import psutil

from shmcompute import __version__, pool
from shmcompute.cli import huge_pages
from shmcompute.storage import reaper, segment_cache, shm, shm_space
from shmcompute.system import atomic_words, cgroup, cores, memory

PACKAGES = ("numpy", "numba", "llvmlite", "psutil", "cloudpickle", "threadpoolctl", "tqdm")
Fact = tuple[str, str]


def info() -> int:
    """Print versions, what this machine offers, and settings."""
    write(*table([*versions(), *machine(), *_choices(), *_settings()]))
    return 0


def ls() -> int:
    """List the segments of this user."""
    rows = [_row(segment) for segment in sorted(reaper.list_segments(), key=attrgetter("name"))]
    if rows:
        write(*table([("name", "shape", "dtype", "size", "state"), *rows], right=(3,)))
    else:
        write("no segments: nothing of yours is in shared memory")
    return 0


def gc() -> int:
    """Remove segments that no process holds, and list them."""
    removed = sorted(reaper.reap(), key=attrgetter("name"))
    alive = sum(segment.alive for segment in reaper.list_segments())
    outcome = "no orphans"
    if removed:
        rows = [(segment.name, human(segment.size)) for segment in removed]
        write(*table([("removed", "size"), *rows], right=(1,)))
        outcome = f"{human(sum(segment.size for segment in removed))} given back"
    write(f"{outcome}; {alive} alive left alone")
    return 0


def write(*lines: str) -> None:
    """Write lines to stdout and flush: a forked worker must not inherit and repeat them."""
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
    """A size in bytes, in a unit in which it is short.

    Examples
    --------
    >>> human(512), human(3 << 19)
    ('512 B', '1.5 MiB')
    """
    power = min((int(size).bit_length() - 1) // 10, 4)
    return f"{size / 1024**power:.1f} {' KMGT'[power]}iB" if power > 0 else f"{size:.0f} B"


def versions(packages: Sequence[str] = PACKAGES) -> list[Fact]:
    """The versions of this package, Python and those packages."""
    python = f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})"
    rest = [(package, _version(package)) for package in packages]
    return [("shmcompute", __version__), ("Python", python), *rest]


def machine() -> list[Fact]:
    """The platform, its cores and memory."""
    cpu_quota, ram, memory_limit = cgroup.cpu_quota(), psutil.virtual_memory(), memory.limit()
    quota = "none" if cpu_quota is None else f"{cpu_quota:g}"
    limit = "none" if memory_limit is None else human(memory_limit)
    return [
        ("platform", platform.platform()),
        ("cores", f"{cores.seen()} seen, {cores.granted()} granted (cgroup quota: {quota})"),
        ("memory", f"{_free(ram.total, ram.available)} (cgroup limit: {limit})"),
        (str(shm_space.FOLDER), _folder()),
    ]


def _row(segment: reaper.SegmentInfo) -> tuple[str, ...]:
    state = "orphaned" if not segment.alive else "warm" if segment.hidden else "alive"
    name, layout, size = segment.name, segment.layout, human(segment.size)
    if layout is None:
        return name, "-", "-", size, f"{state}, damaged"
    return name, str(layout.shape), str(layout.dtype), size, state


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _free(total: float, free: float) -> str:
    return f"{human(total)}, {human(free)} free"


def _folder() -> str:
    free = shm_space.free_bytes()
    if free is None:
        return "no such folder, or it does not tell its size"
    return _free(psutil.disk_usage(str(shm_space.FOLDER)).total, free)


def _choices() -> list[Fact]:
    """Storages, start methods and ways to wait, as far as they can be had here."""
    reason, default = shm.unavailable(), pool.default_start_method()
    methods = ", ".join(multiprocessing.get_all_start_methods())
    return [
        ("storage shm", "available" if reason is None else f"not available: {reason}"),
        ("storage file", "available, at a path of your choice"),
        ("storage array", "available"),
        *huge_pages.facts(shm_space.FOLDER),
        ("kept warm", _or_error(_cache_limit)),
        ("start methods", f"{methods}; default {default}"),
        ("waiting", _or_error(lambda: "futex" if atomic_words.waits_by_futex() else "poll")),
    ]


def _cache_limit() -> str:
    return f"up to {human(segment_cache.limit(shm_space.FOLDER))} of closed arrays"


def _or_error(describe: Callable[[], str]) -> str:
    """A description that depends on a setting, or what is wrong with the setting."""
    try:
        return describe()
    except ValueError as error:
        return f"unknown: {error}"


def _settings() -> list[Fact]:
    settings = sorted(item for item in os.environ.items() if item[0].startswith("SHMCOMPUTE_"))
    return settings or [("settings", "no SHMCOMPUTE_* is set")]

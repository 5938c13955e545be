"""The commands `info`, `ls` and `gc`, and how their output is formatted."""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

import psutil

from shmcompute import __version__, pool
from shmcompute.chunked import remove_all_left
from shmcompute.cli.text import table, write
from shmcompute.diagnostics import huge_pages, human
from shmcompute.progress import counted
from shmcompute.storage import reaper, segment_cache, shm, shm_space
from shmcompute.system import atomic_words, cgroup, cores, file_locks, memory

PACKAGES = ("numpy", "numba", "llvmlite", "psutil", "cloudpickle", "threadpoolctl", "tqdm")
Fact = tuple[str, str]
Holder = tuple[int, str]  # a process, and what it runs


def info(*, as_json: bool = False) -> int:
    """Print versions, what this machine offers, and settings."""
    facts = [*versions(), *machine(), *_choices(), *_settings()]
    write(json.dumps(dict(facts), indent=2) if as_json else "\n".join(table(facts)))
    return 0


def ls(*, as_json: bool = False) -> int:
    """List the segments of this user, and which programs hold them."""
    found = sorted(reaper.list_segments(), key=attrgetter("name"))
    locks = file_locks.flock_holders()
    holders = [_programs(locks.get(segment.file, ())) for segment in found]
    if as_json:
        write(json.dumps(list(map(_described, found, holders)), indent=2))
    elif found:
        head = ("name", "shape", "dtype", "size", "state", "held by")
        write(*table([head, *map(_row, found, holders)], right=(3,)))
    else:
        write("no segments: nothing of yours is in shared memory")
    return 0


def gc(folders: Sequence[str] = ()) -> int:
    """Remove segments that no process holds, and what killed calls left in folders; list them."""
    removed = sorted((segment.name, segment.size) for segment in reaper.reap(_counted))
    for folder in folders:
        if not os.path.isdir(folder):
            raise ValueError(f"gc: {folder} is no folder")
        removed += sorted((str(one), size) for one, size in remove_all_left(Path(folder)))
    alive = sum(segment.alive for segment in reaper.list_segments())
    outcome = "no orphans"
    if removed:
        rows = [(name, human(size)) for name, size in removed]
        write(*table([("removed", "size"), *rows], right=(1,)))
        outcome = f"{human(sum(size for _, size in removed))} given back"
    write(f"{outcome}; {alive} alive left alone")
    return 0


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


def _counted(names: list[str]) -> Iterator[str]:
    """The names, with a bar if there are so many that it takes a while."""
    return counted(names, "segment", "gc")


def _state(segment: reaper.SegmentInfo) -> str:
    return "orphaned" if not segment.alive else "warm" if segment.hidden else "alive"


def _row(segment: reaper.SegmentInfo, holders: list[Holder]) -> tuple[str, ...]:
    state, layout = _state(segment), segment.layout
    held = ", ".join(f"{pid} {program}" for pid, program in holders)
    name, size = segment.name, human(segment.size)
    if layout is None:
        return name, "-", "-", size, f"{state}, damaged", held
    return name, str(layout.shape), str(layout.dtype), size, state, held


def _described(segment: reaper.SegmentInfo, holders: list[Holder]) -> dict[str, Any]:
    """A segment as JSON tells it."""
    layout = segment.layout
    return {
        "name": segment.name,
        "shape": None if layout is None else list(layout.shape),
        "dtype": None if layout is None else str(layout.dtype),
        "size": segment.size,
        "state": _state(segment),
        "damaged": layout is None,
        "holders": [{"pid": pid, "program": program} for pid, program in holders],
    }


def _programs(pids: Iterable[int]) -> list[Holder]:
    """Processes that have a segment, and what they run; who runs longest, so its maker, first."""
    running = []
    for pid in pids:
        with suppress(psutil.Error):  # it has ended, or may not be looked at
            process = psutil.Process(pid)
            running.append((process.create_time(), pid, _program(process)))
    return [(pid, program) for _, pid, program in sorted(running)]


def _program(process: psutil.Process) -> str:
    """A program's name; of an interpreter, the script or module that it runs."""
    name, command = process.name(), process.cmdline()
    if not name.startswith("python"):
        return name
    if "-c" in command:
        ours = any("multiprocessing" in word for word in command)
        return f"{name} (multiprocessing)" if ours else f"{name} -c"
    script = next((word for word in command[1:] if not word.startswith("-")), "")
    return f"{name} {os.path.basename(script)}".rstrip()


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

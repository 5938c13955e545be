"""What is installed and set, and what the system grants this process: cores, memory, limits."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import os
import platform
import re
import resource
import sys
from collections.abc import Iterator

import numba
import psutil

from shmcompute import config, pool
from shmcompute.diagnostics.finding import BROKEN, OK, WARNING, Finding, human, judged
from shmcompute.system import atomic_words, cgroup, code_cache, cores, limits, memory

_LAYERS = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
SCARCE = 256 << 20  # bytes of free memory that are few
DESCRIPTORS = 256  # open files that are few: a worker takes about ten, a mapped array one


def python() -> Iterator[Finding]:
    """Python and the system it runs on."""
    found = f"{platform.python_version()} on {platform.platform()}"
    yield judged(
        "Python",
        found,
        warn=sys.platform != "linux",
        remedy="tested on Linux: elsewhere lock files and polling stand in for what it offers",
    )


def packages() -> Iterator[Finding]:
    """Whether what is needed is installed, and new enough."""
    for line in importlib.metadata.requires("shmcompute") or ():
        name, least = _needed(line)
        if "extra ==" not in line:
            yield _package(name, least)


def _needed(requirement: str) -> tuple[str, str]:
    """The name and the least version of a requirement."""
    name = re.match(r"[\w.-]+", requirement)
    least = re.search(r">=\s*([\d.]+)", requirement)
    return name[0] if name else requirement, least[1] if least else "0"


def _package(name: str, least: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, "not installed", BROKEN, f"pip install '{name}>={least}'")
    if _numbers(version) < _numbers(least):
        return Finding(name, f"{version}, which is too old", BROKEN, f"pip install -U {name}")
    return Finding(name, version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version.split("+", maxsplit=1)[0])[:3]))


def settings() -> Iterator[Finding]:
    """Variables of the environment that are ours, and one of Numba's that changes all."""
    for name in sorted(name for name in os.environ if name.startswith("SHMCOMPUTE_")):
        yield _setting(name)
    if getattr(numba.config, "DISABLE_JIT", False):
        text = "kernels run as plain Python, a hundred times slower"
        yield Finding("NUMBA_DISABLE_JIT", text, WARNING, "unset it, but to debug")


def _setting(name: str) -> Finding:
    known = [f"SHMCOMPUTE_{one}" for one in config.SETTINGS]
    value = os.environ[name]
    if name not in known:
        close = difflib.get_close_matches(name, known, 1) or [", ".join(known)]
        return Finding(name, f"{value}: there is no such setting", WARNING, f"known: {close[0]}")
    try:
        config.check_setting(name.removeprefix("SHMCOMPUTE_"))
    except ValueError as error:
        return Finding(name, f"{value}: {error}", BROKEN, "correct it, or unset it")
    return Finding(name, value)


def processors() -> Iterator[Finding]:
    """How many cores there are for this process, and who else wants them."""
    quota, granted = cgroup.cpu_quota(), cores.granted()
    told = "no cgroup quota" if quota is None else f"cgroup quota: {quota:g}"
    yield judged(
        "cores",
        f"{granted} granted of {cores.seen()} ({told})",
        warn=granted < 2,
        remedy="with one core nothing runs faster in parallel: raise affinity (taskset) or quota "
        "(docker run --cpus=...)",
    )
    load = os.getloadavg()[0]
    yield judged(
        "load",
        f"{load:.1f} programs want a core, {cores.seen()} there are",
        warn=load > cores.seen(),
        remedy="others are at work: times vary, and workers beyond free cores only wait",
    )


def memory_left() -> Iterator[Finding]:
    """Memory of the machine and of the control groups, nested ones too."""
    free, limit = memory.available(), memory.limit()
    told = "no cgroup limit" if limit is None else f"cgroup limit: {human(limit)}"
    yield judged(
        "memory",
        f"{human(free)} free of {human(psutil.virtual_memory().total)} ({told})",
        warn=free < SCARCE,
        remedy="close arrays (python -m shmcompute ls), or raise it (docker run --memory=...)",
    )
    kills = cgroup.oom_kills()
    if kills:
        yield Finding(
            "killed for memory",
            f"{kills} processes of this control group",
            WARNING,
            "workers that vanish with SIGKILL were among them: use less, or raise the limit",
        )


def ulimits() -> Iterator[Finding]:
    """Limits of this process that calls may run into."""
    for name, what, option in limits.known():
        granted = resource.getrlimit(getattr(resource, name))[0]
        if granted == resource.RLIM_INFINITY:
            yield Finding(f"ulimit {option}", f"no limit on {what}")
        else:
            yield _ulimit(name, what, option, granted)


def _ulimit(name: str, what: str, option: str, granted: int) -> Finding:
    few = {"RLIMIT_NOFILE": DESCRIPTORS, "RLIMIT_NPROC": 64}.get(name)
    return judged(
        f"ulimit {option}",
        f"{granted} for {what}",
        warn=few is None or granted < few,
        remedy=f"raise it: ulimit {option} ..., LimitNOFILE= and its like in systemd",
    )


def waiting() -> Iterator[Finding]:
    """How who waits for work sleeps."""
    if atomic_words.waits_by_futex():
        yield Finding("futex", "workers and callers sleep in it")
        return
    yield Finding(
        "futex",
        "none: who waits polls, up to every 4 ms",
        WARNING,
        "unset SHMCOMPUTE_WAIT" if atomic_words.has_futex() else "it is Linux's",
    )


def code_on_disk() -> Iterator[Finding]:
    """Whether our machine code can be kept, or is compiled by each program."""
    try:
        folder = code_cache.folder_of(atomic_words.poll)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} can't be written")
    except (OSError, RuntimeError, ValueError) as error:
        yield Finding(
            "Numba's cache",
            f"none, so each program compiles some seconds at its start: {error}",
            WARNING,
            "set NUMBA_CACHE_DIR to a folder on a local disk that only you can write to",
        )
    else:
        yield Finding("Numba's cache", folder)


def threading_layers() -> Iterator[Finding]:
    """What Numba's `prange` can run on; our own threads need none of it."""
    found = [name for name, module in _LAYERS.items() if _importable(module)]
    yield judged(
        "threading layers",
        f"{', '.join(found) or 'none'}; prange only: parallel_apply needs none",
        warn=not found,
        remedy="reinstall numba, or pip install tbb: kernels with prange do not compile",
    )


def _importable(module: str) -> bool:
    try:
        importlib.import_module(f"numba.np.ufunc.{module}")
    except ImportError:
        return False
    return True


def start_method() -> Iterator[Finding]:
    """How processes would start where nobody says."""
    asked = config.setting("START_METHOD") or pool.default_start_method()
    yield Finding("start method", asked, OK)

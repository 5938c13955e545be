"""Settings from the environment, and checks of arguments.

Read at each use, so that a test or a notebook can change them while it runs.
"""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Iterable, Mapping
from typing import NoReturn, TypeVar

from shmcompute.typing import (
    BackendName,
    NewOrderName,
    OrderName,
    ScheduleName,
    StartMethodName,
    StorageName,
)

W = TypeVar("W", bound=str)

STORAGES: tuple[StorageName, ...] = ("auto", "shm", "file", "array")
BACKENDS: tuple[BackendName, ...] = ("processes", "threads", "serial")
CHOICES: tuple[BackendName, ...] = (
    *BACKENDS,
    "auto",
    "dask",
)  # what may be asked for
WAITS = ("futex", "poll")
SCHEDULES: tuple[ScheduleName, ...] = ("static", "dynamic", "guided")
ORDERS: tuple[OrderName, ...] = ("K", "A", "C", "F")
NEW_ORDERS: tuple[NewOrderName, ...] = ("C", "F")  # of an array that is like no other
# Names of settings, without what they begin with.
SETTINGS = (
    "BACKEND",
    "DEBUG",
    "HUGE_PAGES",
    "LOCK_FILES",
    "SEND_DESCRIPTORS",
    "START_METHOD",
    "STORAGE",
    "TRACE",
    "WAIT",
    "WARM_BYTES",
    "WORKERS",
)
LONGEST = 1e6  # seconds of a timeout, twelve days: the system's calls overflow above
START_METHODS: tuple[StartMethodName, ...] = ("fork", "spawn", "forkserver")


# What multiprocessing, concurrent.futures, joblib, mpire and Dask call options of ours.
HABITS = {
    **dict.fromkeys(
        (
            "max_workers",
            "n_jobs",
            "n_processes",
            "n_threads",
            "n_workers",
            "num_processes",
            "num_threads",
            "num_workers",
            "nworkers",
            "processes",
            "threads",
        ),
        "workers",
    ),
    "batch_size": "chunksize",
    "chunk_size": "chunksize",
    "maxtasksperchild": "max_tasks_per_child",
    "mp_context": "start_method",
    "prefer": "backend",
    "progress_bar": "progress",
    "scheduler": "backend",
    "verbose": "progress",
}
OF_POOLS = {"workers", "start_method", "max_tasks_per_child"}  # not of a call


def setting(name: str) -> str | None:
    """The value of ``SHMCOMPUTE_<name>``, or None if it is unset or empty."""
    return os.environ.get(f"SHMCOMPUTE_{name}") or None


def one_of(what: str, value: object, known: Iterable[W]) -> W:
    """`value`, if it is one of the known words; else a ValueError that lists them."""
    words = tuple(known)
    if isinstance(value, str) and value in words:
        return value
    listed = ", ".join(repr(word) for word in words)
    raise ValueError(f"unknown {what}: {value!r}; known: {listed}")


def refuse_unknown(function: str, unknown: Mapping[str, object]) -> NoReturn:
    """Raise the TypeError of keywords that a function does not have, with the name of ours.

    Parameters
    ----------
    function : str
        What was called.
    unknown : mapping
        The keywords, at least one.
    """
    name, value = next(iter(unknown.items()))
    ours = HABITS.get(name, name if name in OF_POOLS else None)
    told = ""
    if ours in OF_POOLS and function != "Pool":
        told = f"; {ours} is an option of the pool: pool=sc.Pool({ours}={value!r})"
    elif ours is not None:
        told = f"; here it is called {ours}"
    raise TypeError(f"{function}() got an unexpected keyword argument {name!r}{told}")


def refuse_given(what: str, why: str, **options: object) -> None:
    """Raise a TypeError if one of these options, None if not given, does not go with something."""
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise TypeError(f"{what}: {given[0]}= has no meaning there: {why}")


def chosen(what: str, value: str | None, name: str, known: Iterable[W], default: W) -> W:
    """The argument if there is one, else the environment's setting, else `default`; checked."""
    if value is None:
        value = setting(name)
        what = f"{what} (from SHMCOMPUTE_{name})" if value is not None else what
    return one_of(what, default if value is None else value, known)


def count(what: str, value: object, least: int = 1, hint: str = "") -> int:
    """`value` as a whole number, not below `least`; else an error that ends with the hint."""
    try:
        whole = None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        whole = None
    if whole is None:
        raise TypeError(f"{what}: expected a whole number, got {value!r} ({type(value).__name__})")
    if whole < least:
        raise ValueError(f"{what}: expected at least {least}, got {whole}{hint}")
    return whole


def seconds(what: str, value: object) -> float | None:
    """`value` as a time to wait, 0 or more; None: without limit."""
    time = None if value is None else duration(what, value)
    if time is not None and not time >= 0:
        raise ValueError(f"{what}: expected 0 seconds or more, or None, got {value!r}")
    return time


def duration(what: str, value: object) -> float:
    """`value` as a number of seconds, whatever its sign."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{what}: expected seconds or None, got {value!r}")
    return min(float(value), LONGEST)


def timeout(value: object) -> float | None:
    """The seconds that a call may take, above 0; None: as long as it takes."""
    time = None if value is None else duration("timeout", value)
    if time is not None and not time > 0:
        raise ValueError(f"timeout: expected seconds above 0, or None, got {value!r}")
    return time


def size(name: str) -> int | None:
    """The bytes that ``SHMCOMPUTE_<name>`` sets, or None if it is unset or empty."""
    text = setting(name)
    if text is not None and not text.isdecimal():
        raise ValueError(f"SHMCOMPUTE_{name}={text!r}: expected a number of bytes, 0 or more")
    return None if text is None else int(text)


def switched_on(name: str, default: str = "0") -> bool:
    """Whether ``SHMCOMPUTE_<name>`` is 1, not 0; `default` where it is empty or unset."""
    return one_of(f"SHMCOMPUTE_{name}", setting(name) or default, ("0", "1")) == "1"


def workers() -> int | None:
    """How many workers ``SHMCOMPUTE_WORKERS`` asks for, or None if it is unset or empty."""
    said = setting("WORKERS")
    if said is None:
        return None
    try:
        return count("workers", int(said))
    except ValueError as error:
        raise ValueError(f"SHMCOMPUTE_WORKERS={said!r}: expected a number of at least 1") from error


_WORDS = {
    "BACKEND": CHOICES,
    "STORAGE": STORAGES,
    "WAIT": WAITS,
    "START_METHOD": START_METHODS,
    **dict.fromkeys(("DEBUG", "HUGE_PAGES", "LOCK_FILES", "SEND_DESCRIPTORS"), ("0", "1")),
}


def check_setting(name: str) -> None:
    """Raise ValueError if a setting has a value that means nothing."""
    value = setting(name)
    if name == "WORKERS":
        workers()
    elif name == "WARM_BYTES":
        size(name)
    elif value is not None and name in _WORDS:
        one_of(f"SHMCOMPUTE_{name}", value, _WORDS[name])

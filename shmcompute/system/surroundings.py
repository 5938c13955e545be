"""Where a program finds modules and files: what its workers are to have as it has it."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress
from typing import NamedTuple

from shmcompute.system import reloads

# What was last found out, and of which `sys.path`: it seldom changes.
_last: tuple[list[str], str | None, tuple[str, ...]] | None = None
# Folders in which the program was when it last told workers where it is. Modules that it imported
# there, by a relative entry of `sys.path`, workers find by them.
_earlier: dict[str, None] = {}


class Surroundings(NamedTuple):
    """An import path without relative entries, the working directory, what was loaded again."""

    path: tuple[str, ...]
    folder: str | None  # None where it has been removed
    reloads: tuple[tuple[str, int], ...]  # see `reloads.noted`
    writes_bytecode: bool

    def enter(self) -> bool:
        """Import from there, and work there, from now on; whether modules were loaded again."""
        if sys.path != (path := list(self.path)):
            sys.path[:] = path
        importlib.invalidate_caches()
        if self.folder is not None and self.folder != working_folder():
            with suppress(OSError):  # removed, or closed to us: who opens a file there is told
                os.chdir(self.folder)
        sys.dont_write_bytecode = not self.writes_bytecode
        return reloads.follow(self.reloads)


def surroundings() -> Surroundings:
    """Those of this process, now."""
    global _last
    folder, seen = working_folder(), sys.path
    if _last is None or _last[1] != folder or _last[0] != seen:
        path = seen.copy()
        _last = path, folder, _absolute_path(path, folder)
    return Surroundings(_last[2], folder, reloads.noted(), not sys.dont_write_bytecode)


def _absolute_path(path: list[str], folder: str | None) -> tuple[str, ...]:
    """A path without relative entries."""
    relative = [entry for entry in path if not os.path.isabs(entry)]
    if not relative:
        return tuple(path)
    if folder is not None:
        _earlier[folder] = None
    found = [entry if os.path.isabs(entry) else _absolute(folder, entry) for entry in path]
    # Last: what stands there is not to hide what the program finds now.
    found += [_absolute(earlier, entry) for earlier in reversed(_earlier) for entry in relative]
    return tuple(dict.fromkeys(found))


def working_folder() -> str | None:
    """The working directory, or None if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return None


def _absolute(folder: str | None, entry: str) -> str:
    return os.path.normpath(os.path.join(folder, entry)) if folder else entry

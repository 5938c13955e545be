"""`new_versions`: folders beside others, which take their places in one step, or are gone."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from shmcompute.system.libc import exchange


@contextmanager
def new_versions(paths: Sequence[Path]) -> Iterator[list[str]]:
    """New versions of arrays, without their chunks; they take the arrays' places at the end."""
    made: list[Path] = []
    try:
        for path in paths:
            remove_left(path)
            made.append(_begin(path))
        yield [str(new) for new in made]
        _exchange_all(list(zip(made, paths, strict=True)))
    finally:
        for new in made:
            shutil.rmtree(new, ignore_errors=True)


def _exchange_all(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Let new versions change places with the old ones; if one can't, none does."""
    done: list[tuple[Path, Path]] = []
    try:
        for pair in pairs:
            exchange(*pair)  # the old one has the other name now
            done.append(pair)
    except BaseException:
        for pair in done:
            exchange(*pair)
        raise


def _begin(path: Path) -> Path:
    """A version that has what describes the array, and no chunk yet."""
    new = path.with_name(f"{_prefix(path)}{os.getpid()}-{secrets.token_hex(4)}")
    new.mkdir()
    for name in ("zarr.json", ".zarray", ".zattrs"):
        with suppress(FileNotFoundError):
            shutil.copy2(path / name, new / name)
    return new


def _prefix(path: Path) -> str:
    """How the names of new versions begin that this process can tell the makers of by their pids.

    Containers may have their host's name, and pids of their own.
    """
    pids = os.stat("/proc/self/ns/pid").st_ino if os.path.exists("/proc/self/ns/pid") else 0
    return f".{path.name}.new-{socket.gethostname()}-{pids}-"


def remove_left(path: Path) -> None:
    """Remove new versions whose makers have ended without doing so."""
    begin = _prefix(path)
    for left in path.parent.iterdir():
        pid = left.name.removeprefix(begin).partition("-")[0]
        if left.name.startswith(begin) and pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)

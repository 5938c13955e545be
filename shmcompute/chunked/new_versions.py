"""`new_versions`: folders beside others, which take their places in one step, or are gone."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from shmcompute.system.libc import exchange

NEW = re.compile(r"\.(?P<name>.+)\.new-(?P<home>.+)-(?P<pid>\d+)-[0-9a-f]+")


@contextmanager
def new_versions(paths: Sequence[Path]) -> Iterator[list[str]]:
    """New versions of arrays, without their chunks; they take the arrays' places at the end."""
    made: list[Path] = []
    try:
        for path in paths:
            remove_left(path.parent, path.name)
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
    new = path.with_name(f".{path.name}.new-{_home()}-{os.getpid()}-{secrets.token_hex(4)}")
    new.mkdir()
    for name in ("zarr.json", ".zarray", ".zattrs"):
        with suppress(FileNotFoundError):
            shutil.copy2(path / name, new / name)
    return new


def _home() -> str:
    """Where processes have pids of their own: containers may have their host's name."""
    pids = os.stat("/proc/self/ns/pid").st_ino if os.path.exists("/proc/self/ns/pid") else 0
    return f"{socket.gethostname()}-{pids}"


def remove_left(folder: Path, name: str | None = None) -> list[tuple[Path, int]]:
    """Remove new versions in a folder whose makers have ended without doing so.

    Parameters
    ----------
    folder : Path
    name : str, optional
        Of the array; by default any.

    Returns
    -------
    list of tuple
        What was removed, and its size in bytes.
    """
    left = [
        Path(one)
        for one in os.scandir(folder)
        if (found := NEW.fullmatch(one.name))
        and name in (None, found["name"])
        and found["home"] == _home()
        and not Path("/proc", found["pid"]).exists()
    ]
    removed = [(one, _size(one)) for one in left]
    for one in left:
        shutil.rmtree(one, ignore_errors=True)
    return removed


def remove_all_left(folder: Path) -> list[tuple[Path, int]]:
    """The same, also in the folders below it, but for those of arrays."""
    removed = []
    for place, below, files in os.walk(folder):
        if _is_array(place, files):
            below.clear()
            continue
        removed += remove_left(Path(place))
        below[:] = [one for one in below if not NEW.match(one)]
    return removed


def _is_array(place: str, files: Sequence[str]) -> bool:
    """Whether a folder is that of a zarr array, which may have a million others in it."""
    if ".zarray" in files:
        return True
    with suppress(OSError, ValueError):
        return "zarr.json" in files and _node(Path(place, "zarr.json")) == "array"
    return False


def _node(described: Path) -> object:
    return json.loads(described.read_text()).get("node_type")


def _size(folder: Path) -> int:
    return sum(one.lstat().st_size for one in folder.rglob("*") if one.is_file())

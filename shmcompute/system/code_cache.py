"""Numba's cache of machine code on disk, for our own functions; it may be damaged, full or absent.

Numba takes what it finds there for whole: a file that a power cut left empty or full of zeros is an
error of each start, or a crash. So each file ends in a digest. What can't be read is compiled anew,
and what can't be written is not kept.
"""

# Numba is not typed.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from typing import Any

from numba.core import caching

DIGEST = hashlib.sha256().digest_size  # bytes at the end of each file


def cache_for(function: Callable[..., Any], inlined: Iterable[str]) -> CodeCache | None:
    """The cache of a function into which the code of other files is compiled.

    None if there is no folder for it, or none that only trusted users can write to.
    """
    try:
        cache = CodeCache(function)
        _check_folder(cache)
        cache.expire_with(inlined)
        return cache
    except (OSError, RuntimeError, ValueError):  # Numba's words for no folder, and for odd paths
        return None


def folder_of(function: Callable[..., Any]) -> str:
    """Where machine code of a function's file is kept.

    Raises
    ------
    OSError, RuntimeError, ValueError
        If it is not, with the reason.
    """
    return _check_folder(CodeCache(function))


def _check_folder(cache: CodeCache) -> str:
    folder = cache.make_folder()
    if not private(folder):
        raise PermissionError(f"users that are not trusted can write to {folder}")
    return folder


class CodeCache(caching.FunctionCache):
    """Numba's cache of a function, without its errors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._impl_class = _Places
        super().__init__(function)
        file = self._cache_file
        self._cache_file = _CheckedFiles(self._cache_path, "", file._source_stamp)
        vars(self._cache_file).update(vars(file))

    def make_folder(self) -> str:
        """Make its folder, if need be; its path."""
        self._impl.locator.ensure_cache_path()
        return str(self._cache_path)

    def expire_with(self, paths: Iterable[str]) -> None:
        """Expire when these files change, too: Numba looks at the function's own."""
        file = self._cache_file
        file._source_stamp = (file._source_stamp, *map(_stamp, paths))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function; None if it is not there, or not whole."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001  # unpickling what is damaged raises anything
            with suppress(OSError):
                self.flush()  # else it could not be written either
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function, if there is room."""
        with suppress(Exception):
            super().save_overload(sig, data)


class _ArchiveLocator(caching.ZipCacheLocator):
    """Numba's place for code of zip archives, whatever the archive is called: a zipapp, a wheel."""

    @staticmethod
    def _split_zip_path(path: str) -> tuple[str, str]:
        archive = _on_disk(path)
        return archive, os.path.relpath(path, archive)

    @classmethod
    def from_function(cls, function: Any, path: str) -> _ArchiveLocator | None:
        packed = not os.path.exists(path) and os.path.isfile(_on_disk(path))
        return cls(function, path) if packed else None


class _Places(caching.CompileResultCacheImpl):
    """Where Numba keeps code, but for ``~`` where nobody knows whose home that is."""

    @property
    def _locator_classes(self) -> Any:  # type: ignore[override]  # there it is an attribute
        places = [*caching.CompileResultCacheImpl._locator_classes, _ArchiveLocator]
        places.remove(caching.ZipCacheLocator)
        if os.path.isabs(os.path.expanduser("~")):
            return places
        at_home = caching.UserWideCacheLocator, _ArchiveLocator
        return [place for place in places if place not in at_home]


class _CheckedFiles(caching.IndexDataCacheFile):
    """Index and data files that tell if they are whole: what follows a pickle is not read."""

    def _dump(self, value: Any) -> bytes:
        pickled: bytes = super()._dump(value)
        return pickled + hashlib.sha256(pickled).digest()

    def _load_index(self) -> Any:
        with suppress(FileNotFoundError):
            version = pickle.dumps(self._version, protocol=-1)
            _check(self._index_path, len(version))
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check(self._data_path(name), 0)
        return super()._load_data(name)


def _check(path: str, start: int) -> None:
    """Raise ValueError unless a file, from there, ends in its digest."""
    with open(path, "rb") as file:
        content = file.read()[start:]
    if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
        raise ValueError(f"{path} is damaged")


def _stamp(path: str) -> tuple[int, int]:
    stat = os.stat(_on_disk(path))
    return stat.st_mtime_ns, stat.st_size


def _on_disk(path: str) -> str:
    """A file's path; of one within a zip archive, that of the archive."""
    while not os.path.exists(path) and path != (folder := os.path.dirname(path)):
        path = folder
    return path


@lru_cache
def private(folder: str) -> bool:
    """Whether nobody can write into a folder but root, this user, and the owner of this file."""
    stat = os.stat(folder)
    trusted = (0, os.geteuid(), os.stat(_on_disk(__file__)).st_uid)
    return stat.st_uid in trusted and not stat.st_mode & 0o002

"""Machine code kept on disk: what is damaged is compiled anew; where there is no room it goes."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import zipfile

import numba
import pytest
from numba.core import caching

from shmcompute.system import code_cache
from shmcompute.system.atomic_words import jitted

SOURCE = "def double(x):\n    return 2 * x\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where code is kept: a folder of its own for each test."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def double(folder, monkeypatch):
    (folder / "cached_double.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("cached_double").double
    del sys.modules["cached_double"]


def _hits(function):
    """How often its code was found; it works in any case."""
    dispatcher = jitted(function)
    assert dispatcher(21) == 42
    return sum(dispatcher.stats.cache_hits.values())


def test_code_is_kept(double):
    assert [_hits(double) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-40] + bytes(8) + content[-32:],
        lambda content: bytes(len(content)),
        lambda content: content[:-32],  # whole, but without a digest: kept by Numba alone
    ],
    ids=["empty", "half", "zeros", "all zeros", "no digest"],
)
def test_what_is_damaged_is_compiled_anew(double, folder, kind, damage):
    assert _hits(double) == 0
    (path,) = (folder / "cache").rglob(f"*.{kind}")
    path.write_bytes(damage(path.read_bytes()))
    assert [_hits(double) for _ in range(2)] == [0, 1]


def test_a_full_disk_is_no_error(double, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    assert [_hits(double) for _ in range(2)] == [0, 0]
    monkeypatch.undo()
    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_index", full)
    assert _hits(double) == 0


def test_a_folder_without_room_is_done_without(double, monkeypatch):
    def full(self):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", full)
    assert _hits(double) == 0


def test_functions_may_come_from_a_zip_archive(folder, monkeypatch):
    """Whatever its name: a zipapp's ends otherwise."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    for name in ("code.zip", "code.pyz"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(f"of_{name[-3:]}.py", SOURCE)
        monkeypatch.syspath_prepend(folder / name)
        function = importlib.import_module(f"of_{name[-3:]}").double
        del sys.modules[function.__module__]
        assert code_cache._on_disk(function.__code__.co_filename) == str(folder / name)
        assert [_hits(function) for _ in range(2)] == [0, 1]


def test_nothing_is_kept_at_home_where_that_is_unknown(monkeypatch, folder, double):
    """Numba would make a folder called ``~``."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.setattr(caching.InTreeCacheLocator, "from_function", lambda *_: None)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(folder)
    assert code_cache.cache_for(double, ()) is None
    assert not (folder / "~").exists()

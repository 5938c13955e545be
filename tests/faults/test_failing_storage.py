"""Each call to the system that makes, maps, locks or removes a segment may fail, at any time."""

from __future__ import annotations

import gc
import itertools
import os
from contextlib import suppress

import failing
import numpy as np
import pytest

import shmcompute as sc
from shmcompute import storage
from shmcompute.storage import exclusive, factory, reaper, segment_cache, shm
from shmcompute.storage.names import HIDDEN, PREFIX

pytestmark = pytest.mark.skipif(
    failing._posixshmem is None or not hasattr(os, "memfd_create"), reason="Linux's calls"
)
OURS = f"{os.getpid():x}_"
_count = itertools.count()
_link, _unlink = os.link, os.unlink


def _named():
    return f"{PREFIX}{OURS}{next(_count)}"


@pytest.fixture(autouse=True)
def marked(monkeypatch):
    """All names that this process gives tell that they are its own; it looks at no others."""
    monkeypatch.setattr(
        shm, "candidates", lambda asked: [asked or _named(), *([] if asked else [_named()])]
    )
    monkeypatch.setattr(segment_cache, "HIDDEN", HIDDEN + OURS)
    monkeypatch.setattr(reaper, "_candidate", lambda entry: OURS in entry.name)
    factory._reap_once()
    yield
    _left()


def named(folder):
    with sc.SharedArray(np.arange(9.0), storage="shm") as arr:
        np.testing.assert_array_equal(arr.array, np.arange(9.0))


def file(folder):
    with sc.SharedArray(np.arange(9.0), storage="file", name=folder / f"{next(_count)}") as arr:
        np.testing.assert_array_equal(arr.array, np.arange(9.0))
        arr.unlink()


def array(folder):
    with sc.SharedArray(np.arange(9.0), storage="array") as arr:
        np.testing.assert_array_equal(arr.array, np.arange(9.0))


def zeros(folder):
    with sc.SharedArray.zeros(9, storage="shm") as arr:
        assert not arr.array.any()


def large(folder):
    """Whose memory may be kept for the next."""
    for value in (1.0, 2.0):
        with sc.SharedArray.full(segment_cache.LEAST // 8, value, storage="shm") as arr:
            assert (arr.array == value).all()


def attach(folder):
    """By a second name, for what this process has mapped it does not map again."""
    with sc.SharedArray(np.arange(9.0), storage="shm", name=_named()) as arr:
        _link(shm.FOLDER / arr.name, other := shm.FOLDER / _named())
        try:
            with sc.SharedArray.attach(other.name) as found:
                assert found.segment.address != arr.segment.address
                np.testing.assert_array_equal(found.array, np.arange(9.0))
        finally:
            _unlink(other)


def opened(folder):
    for mode in ("r", "r+"):
        with sc.SharedArray.open(folder / "nine.npy", mode) as arr:
            np.testing.assert_array_equal(arr.array, np.arange(9.0))


def reap(folder):
    """What can't be looked at is passed over, never taken for dead."""
    with sc.SharedArray(np.arange(9.0), storage="shm") as arr:
        assert arr.name not in {found.name for found in reaper.reap()}
        assert all(found.alive for found in reaper.list_segments() if found.name == arr.name)
        assert os.path.exists(shm.FOLDER / arr.name)


def _left():
    """All that a failure could leave behind."""
    sc.shutdown()
    for page in exclusive._current.values():
        page.close()
    exclusive._current.clear()
    return {
        "segments mapped": {segment.address for segment in storage.live()},
        "names": {entry for entry in os.listdir(shm.FOLDER) if OURS in entry},
        "descriptors": failing.descriptors(),
    }


@pytest.fixture
def settled(tmp_path):
    """Run a scenario with a fault; complain of an error without a type, and of what is left."""
    np.save(tmp_path / "nine.npy", np.arange(9.0))

    def run(scenario, fault):
        before = _left()
        with pytest.MonkeyPatch.context() as patch, suppress(sc.errors.StorageError):
            fault.patch(patch)
            scenario(tmp_path)
        if fault.name in ("unlink", "shm_unlink"):
            sc.shutdown()
            reaper.reap()  # what could not be removed is an orphan, and goes at the next look
        if _left() != before:
            gc.collect()  # an error may have been in a cycle
        left = _left()
        assert left == before, fault

    return run


@pytest.mark.long
@pytest.mark.parametrize(
    "scenario",
    [named, file, array, zeros, large, attach, opened, reap],
    ids=lambda scenario: scenario.__name__,
)
def test_what_fails_is_typed_and_leaves_nothing(scenario, settled, tmp_path, sweep):
    for function in failing.STORAGE:
        sweep(function, lambda fault: settled(scenario, fault))
        scenario(tmp_path)


@pytest.mark.long
def test_so_where_memory_is_kept_for_the_next(settled, tmp_path, monkeypatch, sweep):
    monkeypatch.delenv("SHMCOMPUTE_WARM_BYTES")
    for function in failing.STORAGE:
        sweep(function, lambda fault: settled(large, fault))
        large(tmp_path)


def test_so_where_lock_files_stand_in(settled, tmp_path, monkeypatch, sweep):
    monkeypatch.setenv("SHMCOMPUTE_LOCK_FILES", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for function in failing.STORAGE:
        sweep(function, lambda fault: settled(named, fault))
        named(tmp_path)

"""Orphans go, the living stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernels import run

import shmcompute as sc
from shmcompute.storage import liveness, reaper, shm

SHM = Path("/dev/shm")

HOLD = """
import os, sys
import numpy as np, shmcompute as sc
arrays = [sc.SharedArray(np.ones(1000), name=name or None, storage="shm") for name in sys.argv[1:]]
print(*(arr.name for arr in arrays), flush=True)
sys.stdin.readline()
os.kill(os.getpid(), 9)
"""


class Holder:
    """A process that makes segments and dies of SIGKILL when told."""

    def __init__(self, *names, env=None):
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self.names = self.process.stdout.readline().split()

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def holder():
    holder = Holder("", f"named_{os.getpid()}")
    yield holder
    holder.kill()
    reaper.reap()


def _seen():
    return {found.name: found for found in reaper.list_segments()}


def test_a_segment_is_listed_alive_while_its_process_lives(holder):
    for name in holder.names:
        assert _seen()[name].alive
        assert _seen()[name].layout.shape == (1000,)


def test_what_a_killed_process_leaves_is_an_orphan_and_goes(holder):
    holder.kill()
    assert all(not _seen()[name].alive for name in holder.names)
    removed = {found.name for found in reaper.reap()}
    assert set(holder.names) <= removed
    assert not any((SHM / name).exists() for name in holder.names)


def test_the_living_are_never_touched(holder):
    with sc.SharedArray([1.0], storage="shm") as arr:
        removed = {found.name for found in reaper.reap()}
        assert not removed & {arr.name, *holder.names}
        assert all((SHM / name).exists() for name in (arr.name, *holder.names))


@pytest.mark.long
def test_an_attacher_keeps_a_segment_alive_when_its_owner_dies(holder):
    with sc.SharedArray.attach(holder.names[0]) as arr:
        holder.kill()
        reaper.reap()
        assert (SHM / arr.name).exists()
        assert not (SHM / holder.names[1]).exists()
        assert arr.array.sum() == 1000
    reaper.reap()
    assert not (SHM / holder.names[0]).exists()


def test_a_view_keeps_a_segment_alive(holder):
    arr = sc.SharedArray.attach(holder.names[0])
    view = arr.array[::2]
    arr.close()
    holder.kill()
    reaper.reap()
    assert (SHM / holder.names[0]).exists()
    assert view.sum() == 500
    del view, arr
    reaper.reap()


@pytest.mark.long
def test_the_next_program_that_makes_an_array_leaves_nothing_of_it(holder):
    holder.kill()
    run("import shmcompute as sc; sc.SharedArray([1.0], storage='shm').close()")
    assert not any((SHM / name).exists() for name in holder.names)


def test_what_is_not_ours_stays():
    for content in (b"", b"x" * 10_000, shm.layouts.MAGIC + b"x"):
        path = SHM / f"foreign_{os.getpid()}"
        path.write_bytes(content)
        try:
            removed = {found.name for found in reaper.reap()}
            assert path.exists()
            assert path.name not in removed
        finally:
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("copied", ["all of it", "the end"])
def test_a_copy_of_a_segment_stays(copied):
    """Somebody may keep one, as a backup: it is no orphan, though it reads like one."""
    path = SHM / f"backup_{os.getpid()}"
    with sc.SharedArray(np.arange(3000.0), storage="shm") as arr:
        content = (SHM / arr.name).read_bytes()
    path.write_bytes(content if copied == "all of it" else content[-5000:])
    before = path.read_bytes()
    try:
        assert path.name not in _seen()
        assert path.name not in {found.name for found in reaper.reap()}
        assert path.read_bytes() == before
        if copied == "all of it":
            with sc.SharedArray.attach(path.name) as arr:
                assert arr.array.sum() == np.arange(3000.0).sum()
    finally:
        path.unlink()


def test_a_name_that_is_no_text_does_not_disturb():
    path = os.path.join(b"/dev/shm", b"foreign_\xff_%d" % os.getpid())
    open(path, "wb").close()
    try:
        reaper.reap()
        assert os.path.exists(path)
    finally:
        os.unlink(path)


def test_a_damaged_orphan_of_ours_goes():
    name = f"{shm.PREFIX}{os.urandom(8).hex()}"
    (SHM / name).write_bytes(b"half made")
    assert _seen()[name].layout is None
    reaper.reap()
    assert not (SHM / name).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_orphan_stays():
    with sc.SharedArray([1.0], storage="shm") as arr:
        name = f"{shm.PREFIX}{os.urandom(8).hex()}"
        (SHM / name).write_bytes((SHM / arr.name).read_bytes())
    os.chown(SHM / name, 12345, -1)
    try:
        assert name not in {found.name for found in reaper.reap()}
        assert (SHM / name).exists()
    finally:
        (SHM / name).unlink()


@pytest.fixture
def by_files(monkeypatch, tmp_path):
    """Lock files in place of locks on segments, as on macOS, switched on here."""
    monkeypatch.setenv("SHMCOMPUTE_LOCK_FILES", "1")
    monkeypatch.setattr(liveness.tempfile, "gettempdir", lambda: str(tmp_path))
    return {"SHMCOMPUTE_LOCK_FILES": "1", "TMPDIR": str(tmp_path)}


def test_lock_files_serve_where_segments_take_no_locks(by_files):
    holder = Holder("", env=by_files)
    (name,) = holder.names
    with sc.SharedArray(np.ones(3), storage="shm") as arr:
        assert {_seen()[name].alive, _seen()[arr.name].alive} == {True}
        assert not {found.name for found in reaper.reap()} & {name, arr.name}
        holder.kill()
        assert {found.name for found in reaper.reap()} == {name}
        assert not (liveness.folder() / name).exists()
        own = arr.name
        assert (liveness.folder() / own).exists()
    assert not (liveness.folder() / own).exists()


def test_a_lock_file_without_a_segment_goes(by_files):
    (liveness.folder() / "stale").touch()
    reaper.reap()
    assert not (liveness.folder() / "stale").exists()


def test_the_folder_of_lock_files_must_be_ours_alone(by_files):
    liveness.folder().chmod(0o755)
    with pytest.raises(sc.errors.StorageError, match="0700"):
        liveness.folder()


@pytest.mark.long
@pytest.mark.parametrize("trial", range(3))
def test_a_killed_process_group_leaves_nothing(trial):
    """Arrays, a pool that works on them, and SIGKILL for all of them at once."""
    with sc.SharedArray([1.0], storage="shm") as live:
        process = subprocess.Popen(
            [sys.executable, "-c", GROUP, str(trial)],
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        names = process.stdout.readline().split()
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        run("import shmcompute as sc; sc.SharedArray([1.0], storage='shm').close()")
        assert names
        assert not any((SHM / name).exists() for name in names)
        assert (SHM / live.name).exists()


GROUP = """
import sys, threading
import numpy as np, shmcompute as sc
arrays = [sc.SharedArray(np.ones(100_000), storage="shm") for _ in range(3)]
with sc.Pool(2, start_method=("fork", "spawn", "forkserver")[int(sys.argv[1]) % 3]) as pool:
    sc.parallel_apply(np.sqrt, arrays[0], pool=pool)
    print(*(arr.name for arr in arrays), flush=True)
    while True:
        sc.parallel_apply(np.sqrt, arrays[0], pool=pool)
        sc.SharedArray(np.ones(1000), storage="shm").close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all have lock files")
def test_one_with_a_lock_file_is_alive_to_who_looks_for_a_lock(monkeypatch):
    """Programs of both kinds may run at a time; neither removes what the other uses."""
    monkeypatch.setenv("SHMCOMPUTE_LOCK_FILES", "1")
    with sc.SharedArray([1.0], storage="shm") as arr:
        with monkeypatch.context() as patch:
            patch.setenv("SHMCOMPUTE_LOCK_FILES", "")
            assert reaper._inspect(arr.name, remove=True).alive
        assert reaper._inspect(arr.name, remove=True).alive

"""Workers of clusters, and links to them, go at random moments: the right bits, or as before."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import leaks
import numba as nb
import numpy as np
import pytest
from faults import programs
from faults.trial import BLOCKS, LINKS, VERSIONS, scaled

import shmcompute as sc
from shmcompute.errors import WorkerLostError

pytestmark = pytest.mark.soak
LENGTH, PARTS = 24_000, 12
WORK = 0.03  # seconds a part
X = np.random.default_rng(0).random(LENGTH)
EXPECTED = X * 3.0 + np.arange(LENGTH)


@nb.njit
def affine(x, first):
    for i in range(x.size):
        x[i] = x[i] * 3.0 + (first + i)


def slowly(x, first, work):
    half = x.size // 2
    affine(x[:half], first)
    time.sleep(work)
    affine(x[half:], first + half)


class Cluster:
    """Three workers, and an array that they keep; made anew where Dask brings none back."""

    def __init__(self, content):
        self.content = content
        self.made = 0
        self._make()

    def _make(self):
        import dask.array as da
        import distributed

        self._cluster = distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            silence_logs=50,
        )  # fmt: skip
        self.client = distributed.Client(self._cluster)
        self.kept = da.from_array(self.content, chunks=LENGTH // PARTS).persist()
        self.made += 1

    def pids(self):
        """Those of all its workers."""
        try:
            self.client.wait_for_workers(3, timeout=15)
        except TimeoutError:  # a nanny does not see all deaths of a worker that has just begun
            self.close()
            self._make()
            self.client.wait_for_workers(3, timeout=60)
        return list(self.client.run(os.getpid, on_error="ignore").values())

    def close(self):
        self.client.close()
        self._cluster.close()


@pytest.fixture
def cluster():
    pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    # Whoever dies is not to be blamed on the task that ran there.
    with leaks.kept(), dask.config.set({"distributed.scheduler.allowed-failures": 1000}):
        cluster = Cluster(X.copy())
        yield cluster
        cluster.close()


def kill_later(seconds, pid):
    killer = threading.Timer(seconds, _kill, (pid,))
    killer.start()
    return killer


def _kill(pid):
    with suppress(ProcessLookupError):  # it ended before: the call after its death replaced it
        os.kill(pid, signal.SIGKILL)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_workers_that_are_killed_change_nothing_but_the_time(cluster, counts):
    """Of `applied`: what was persisted on the cluster, the caller's array, and the result."""
    dice = random.Random(0)
    with counts.trial(BLOCKS) as trial:
        for _ in trial.times(100):
            killer = kill_later(dice.uniform(0, 0.2), dice.choice(cluster.pids()))
            found = sc.applied(slowly, cluster.kept, sc.offset, WORK).compute()
            trial.tell("killed before the end", not killer.is_alive())
            killer.join()
            trial.never("wrong results", not np.array_equal(found, EXPECTED))
            trial.never("inputs changed", not np.array_equal(cluster.kept.compute(), X))
            trial.never("inputs changed", not np.array_equal(cluster.content, X))
        trial.tell("clusters made anew", cluster.made - 1)


def written_in_place(path, start, length, work):
    """What who has no new versions would do."""
    import zarr

    array = zarr.open_array(path)
    part = array[start : start + length]
    slowly(part, start, work)
    array[start : start + length] = part


def test_zarr_arrays_read_as_before_or_as_after(tmp_path, counts, monkeypatch):
    zarr = pytest.importorskip("zarr")
    from shmcompute.chunked import zarr_arrays

    monkeypatch.setattr(zarr_arrays, "REGION", 1)  # so that each chunk is a task
    dice, length = random.Random(0), LENGTH // PARTS
    with leaks.kept(), counts.trial(VERSIONS) as trial, sc.Pool(2) as pool:
        for _ in trial.times(100):
            array = zarr.create_array(tmp_path / "x", data=X, chunks=length, overwrite=True)
            seconds, victim = dice.uniform(0, 0.4), dice.randrange(2)
            killer = kill_later(seconds, pool.ready().pids[victim])
            expected = EXPECTED
            try:
                sc.parallel_apply(slowly, array, sc.offset, WORK, pool=pool)
                trial.tell("done")
            except WorkerLostError:
                expected = X
                trial.tell("typed errors")
            killer.join()
            trial.never(
                "torn arrays", not np.array_equal(zarr.open_array(tmp_path / "x"), expected)
            )
            trial.never("versions left", len(os.listdir(tmp_path)) != 1)
            # The control, which may be torn: else this would not find it.
            array[...] = X
            killer = kill_later(seconds, pool.ready().pids[victim])
            tasks = [
                pool.submit(written_in_place, str(tmp_path / "x"), start, length, WORK)
                for start in range(0, LENGTH, length)
            ]
            errors = [task.exception() for task in tasks]
            killer.join()
            found = zarr.open_array(tmp_path / "x")[...]
            whole = EXPECTED if not any(errors) else X
            trial.tell("torn by the control", not np.array_equal(found, whole))
        assert trial.among.get("torn by the control", 0) > 0


def can_make_hosts():
    try:
        made = subprocess.run(["ip", "netns", "add", "shmc-try"], capture_output=True)
        subprocess.run(["ip", "netns", "del", "shmc-try"], capture_output=True)
    except OSError:
        return False
    return made.returncode == 0


@pytest.fixture
def hosts():
    """Two network namespaces with a link between them."""
    if os.geteuid() != 0 or not can_make_hosts():
        pytest.skip("needs network namespaces of its own")
    pytest.importorskip("distributed")
    one, two = f"shmc-{os.getpid()}a", f"shmc-{os.getpid()}b"

    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", one)
    ip("netns", "add", two)
    try:
        veth = "type", "veth", "peer", "name"
        ip("link", "add", "wire", "netns", one, *veth, "wire", "netns", two)
        for host, number in ((one, 1), (two, 2)):
            ip("-n", host, "addr", "add", f"10.83.7.{number}/24", "dev", "wire")
            for device in ("lo", "wire"):
                ip("-n", host, "link", "set", device, "up")
        yield one, two
    finally:
        ip("netns", "del", one)
        ip("netns", "del", two)


@pytest.mark.parametrize("kind", ["applied", "pool", "zarr"])
@pytest.mark.parametrize("number", range(scaled(4)))
def test_a_link_that_is_cut_changes_nothing_but_the_time(kind, number, hosts, counts, tmp_path):
    """And a worker that goes on, and writes to where both hosts do, harms nobody."""
    if kind == "zarr":
        pytest.importorskip("zarr")
    command = ["ip", "netns", "exec", hosts[0], sys.executable, programs.HERE / "cluster.py"]
    with counts.trial(LINKS) as trial:
        done = subprocess.run(
            [*command, kind, hosts[1]], capture_output=True, text=True, timeout=180, cwd=tmp_path,
            env=programs.environment(),
        )  # fmt: skip
        seconds, most, *right = done.stdout.split()
        trial.count += 1
        trial.tell(kind)
        trial.within("beyond time-out and work", float(seconds) - float(most) + 5, most=5)
        trial.never("wrong results", right.count("0"))
        assert done.returncode == 0, done.stderr

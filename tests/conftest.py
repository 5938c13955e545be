"""Fixtures: pools that the suite shares, and the leak check around every test."""

from __future__ import annotations

import gc
import os
import signal
import threading
import warnings
from pathlib import Path

import leaks
import numpy as np
import psutil
import pytest

import shmcompute as sc
from shmcompute import storage
from shmcompute.config import START_METHODS
from shmcompute.pool import default_pool

pytest_plugins = ["faults.counts"]  # the fixture `counts`, and its words at the end

os.environ.setdefault("SHMCOMPUTE_WORKERS", "2")
os.environ.setdefault("SHMCOMPUTE_WARM_BYTES", "0")  # else leaks would hide: see test_segment_cache

# Programs that the suite starts hear Ctrl-C as in a terminal: a job in a shell's background has it
# ignored, and so would they.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = ["faults/fuzz_trailer.py"]  # run by hand; it needs a library of its own


class Pools:
    """One pool for each backend and start method, kept for the whole session."""

    def __init__(self):
        self._pools = {
            **{method: sc.Pool(2, start_method=method) for method in START_METHODS},
            "caller": sc.Pool(2, caller_runs=True),
            "threads": sc.Pool(2, backend="threads"),
            "serial": sc.Pool(1, backend="serial"),
        }
        # The fork server, which is all pools', would prepare for pipes if it started below.
        self["forkserver"].ready(60)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SHMCOMPUTE_WAIT", "poll")
            self._pools["poll"] = sc.Pool(2)
            self._pools["threads-poll"] = sc.Pool(2, backend="threads")

    def __getitem__(self, name):
        return self._pools[name]

    def ready(self):
        for pool in self._pools.values():
            pool.ready(60)
            _warm(pool=pool)
        for name in ("threads", "threads-poll"):
            _warm_threads(pool=self._pools[name])

    def close(self):
        for pool in self._pools.values():
            pool.close()


@pytest.fixture(scope="session", autouse=True)
def pools(request):
    pools = Pools()
    pools.ready()
    _common_pools()
    gc.collect()
    gc.freeze()  # a collection around every test is to look at what the test made, not at Numba
    yield pools
    pools.close()
    sc.shutdown()
    # The standard library's fork server and resource tracker end with this process.
    left = [child for child in psutil.Process().children() if not _of_the_library(child)]
    assert not left, f"worker processes left after the suite: {left}"
    if not request.session.testsfailed:  # the traceback of a failure keeps what it shows
        assert not storage.live(), "segments mapped after the suite"


_warmed: dict[str, sc.Pool] = {}


def _common_pools():
    """Have the pools of calls that name none: a test may have shut them down."""
    for backend in ("serial", "threads", "processes"):
        pool = default_pool(backend)
        if _warmed.get(backend) is not pool:
            _warmed[backend] = pool
            _warm(backend=backend)
            if backend == "threads":
                _warm_threads(backend=backend)


def _of_the_library(process):
    command = " ".join(process.cmdline())
    return "multiprocessing.forkserver" in command or "multiprocessing.resource_tracker" in command


def _touch(x):
    x += 1


def _warm(**keywords):
    """Have every worker and thread started that will be."""
    with sc.SharedArray([1.0, 2.0]) as arr:
        sc.parallel_apply(_touch, arr, **keywords)


def _warm_threads(**keywords):
    """An executor starts a thread only if none is idle: have both wait for each other."""
    meeting = threading.Barrier(2)
    sc.parallel_apply(lambda _: (meeting.wait(), None)[1], np.zeros(2), **keywords)
    if (pool := keywords.get("pool")) is not None:
        for future in [pool.submit(meeting.wait) for _ in range(2)]:
            future.result()


@pytest.fixture(params=[*START_METHODS, "caller", "poll", "threads", "threads-poll", "serial"])
def any_pool(request, pools):
    """A pool of every backend, start method and waiting."""
    return pools[request.param]


@pytest.fixture(params=[*START_METHODS, "poll"])
def process_pool(request, pools):
    """A process pool of every start method and waiting."""
    return pools[request.param]


@pytest.fixture(params=["shm", "file", "array"])
def any_storage(request, tmp_path):
    """Keywords that choose each kind of storage."""
    if request.param != "file":
        return {"storage": request.param}
    return _Path(tmp_path)


class _Path(dict):
    """Keywords for ``storage="file"``, with a new path at each use."""

    def __init__(self, folder: Path):
        super().__init__(storage="file", name="")
        self._folder = folder
        self._used = 0

    def __getitem__(self, key):
        if key != "name":
            return super().__getitem__(key)
        self._used += 1
        return self._folder / f"{self._used}.npy"


def _let_threads_end():
    """That of a pool's tasks ends a moment after the last of them, another with the fork server."""
    for thread in threading.enumerate():
        if thread.name in ("shmcompute-dispatcher", "shmcompute-launch"):
            thread.join()


@pytest.fixture(autouse=True)
def no_leaks(pools, request):
    """Every test leaves as many segments, descriptors, children and threads as it found."""
    _common_pools()
    gc.collect()
    before = leaks.held()
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        return  # the traceback of a failure keeps what it shows
    _let_threads_end()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    assert not leaks.left(before)

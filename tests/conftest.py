"""Fixtures: pools that the suite shares, leak checks, and which pools meet which storages."""

from __future__ import annotations

import gc
import os
import signal
import threading
import warnings
import zlib
from importlib.util import find_spec
from pathlib import Path

import kernels
import leaks
import numpy as np
import psutil
import pytest

import shmcompute as sc
from shmcompute import default_pools, storage
from shmcompute.config import START_METHODS

pytest_plugins = ["faults.counts"]  # the fixture `counts`, and its words at the end

os.environ.setdefault("SHMCOMPUTE_WORKERS", "2")
os.environ.setdefault("SHMCOMPUTE_WARM_BYTES", "0")  # else leaks would hide: see test_segment_cache

# Programs that the suite starts hear Ctrl-C as in a terminal: a job in a shell's background has it
# ignored, and so would they.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Run by hand or by a trial: they need a library of their own.
collect_ignore = ["faults/fuzz_trailer.py", "faults/programs/patched.py"]


class Pools:
    """One pool for each backend and start method: made when a test first asks for it, then kept."""

    def __init__(self):
        self._pools = {}

    def __getitem__(self, name):
        if name not in self._pools:
            with leaks.kept():
                self._pools[name] = _warm(_pool(name))
        return self._pools[name]

    def close(self):
        for pool in self._pools.values():
            pool.close()


def _pool(name):
    wait = "poll" if name.endswith("poll") else os.environ.get("SHMCOMPUTE_WAIT", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHMCOMPUTE_WAIT", wait)
        if name in START_METHODS:
            return sc.Pool(2, start_method=name)
        if name in ("caller", "poll"):
            return sc.Pool(2, caller_runs=name == "caller")
        if name.startswith("serial"):
            pool = sc.Pool(1, backend="serial")
            if name == "serial-native":
                pool.running.pays = 0
            return pool
        return sc.Pool(2, backend=name.removesuffix("-poll"))


@pytest.fixture(scope="session")
def pools(request):
    pools = Pools()
    yield pools
    pools.close()


@pytest.fixture(scope="session", autouse=True)
def nothing_stays(request):
    """At the end no worker process and no segment is left."""
    yield
    sc.shutdown()
    if kernels.server.cache_info().currsize:
        kernels.server().close()
    # The standard library's fork server and resource tracker end with this process.
    left = [child for child in psutil.Process().children() if not _of_the_library(child)]
    assert not left, f"worker processes left after the suite: {left}"
    if not request.session.testsfailed:  # the traceback of a failure keeps what it shows
        assert not storage.live(), "segments mapped after the suite"


@pytest.fixture(scope="session", autouse=True)
def common_pools():
    """Calls that name no pool make one, which later tests share: it is no leak of its first user's.

    A test may shut it down; the next call makes another.
    """
    real, here = default_pools._DefaultPool, os.getpid()

    def made(*args, backend, **keywords):
        # Not so in a forked child, nor that of calls within kernels, which holds nothing.
        if os.getpid() != here or backend == "serial":
            return real(*args, backend=backend, **keywords)
        with leaks.kept():
            return _warm(real(*args, backend=backend, **keywords))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(default_pools, "_DefaultPool", made)
        yield


def _of_the_library(process):
    command = " ".join(process.cmdline())
    return "multiprocessing.forkserver" in command or "multiprocessing.resource_tracker" in command


def _touch(x):
    x += 1


def _warm(pool):
    """Have every worker and thread started that will be."""
    with sc.SharedArray([1.0, 2.0]) as arr:
        sc.parallel_apply(_touch, arr, pool=pool.ready(60))
    if pool.backend == "threads":
        # An executor starts a thread only if none is idle: have both wait for each other.
        meeting = threading.Barrier(2)
        sc.parallel_apply(lambda _: (meeting.wait(), None)[1], np.zeros(2), pool=pool)
        for future in [pool.submit(meeting.wait) for _ in range(2)]:
            future.result()
    return pool


# What waits like "poll", and what calls like "threads", is for the whole suite.
IN_PROCESS = (
    "threads",
    pytest.param("threads-poll", marks=pytest.mark.long),
    "serial",
    pytest.param("serial-native", marks=pytest.mark.long),
)


@pytest.fixture(params=[*START_METHODS, "caller", "poll", *IN_PROCESS])
def any_pool(request, pools):
    """A pool of every backend, start method and waiting."""
    return pools[request.param]


@pytest.fixture(params=[*START_METHODS, "poll"])
def process_pool(request, pools):
    """A process pool of every start method and waiting."""
    return pools[request.param]


STORAGES = ["shm", "file", "array"]
POOLS = {"any_pool", "process_pool"}


@pytest.fixture(params=STORAGES)
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
    """Those of tasks, of the fork server and of workers' start end a moment after what they do."""
    for thread in threading.enumerate():
        if thread.name in ("shmcompute-dispatcher", "shmcompute-launch", "shmcompute-start"):
            thread.join()


def _no_leaks(request):
    gc.collect()
    gc.freeze()  # the next collection is to look at what tests make, not at Numba
    before = leaks.held()
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        return  # the traceback of a failure keeps what it shows
    _let_threads_end()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    assert not leaks.left(before), "run again with --leaks=test to see which test it was"


@pytest.fixture(scope="module", autouse=True)
def no_leaks(request):
    """Every module leaves as many segments, descriptors, children and threads as it found."""
    yield from _no_leaks(request)


@pytest.fixture(autouse=True)
def no_leaks_of_a_test(request):
    """So does every test, if asked."""
    yield from _no_leaks(request) if request.config.getoption("leaks") == "test" else [None]


def pytest_addoption(parser):
    parser.addoption(
        "--leaks",
        choices=["module", "test"],
        default="module",
        help="after what to look for leaks; a test is what to look at where a module fails",
    )
    parser.addoption(
        "--whole",
        action="store_true",
        help="run also what takes about a second (`long`), and tests of pools with all of them",
    )
    parser.addoption(
        "--matrix",
        action="store_true",
        help="run the tests of pools and storages, each with all of both, and no other tests",
    )


def pytest_collection_modifyitems(config, items):
    """Take what the options say; a test that is named is wanted."""
    whole = config.option.whole or any("::" in word for word in config.args)
    taken, dropped = [], []
    for item in items:
        pool, storage = POOLS & _indices(item).keys(), "any_storage" in _indices(item)
        if config.option.matrix:
            wanted = pool and storage
        else:
            wanted = not (pool and storage) or _is_pair(item)
            if not whole:
                wanted &= "long" not in item.keywords and (not pool or _is_sampled(item))
        (taken if wanted else dropped).append(item)
        if item.name == "shmcompute.chunked.applied.applied" and find_spec("dask") is None:
            item.add_marker(pytest.mark.skip(reason="its example needs Dask"))
    items[:] = taken
    config.hook.pytest_deselected(items=dropped)


def _indices(item):
    """Which of its values each parameter has, by number."""
    return item.callspec.indices if hasattr(item, "callspec") else {}


def _is_pair(item):
    """Whether a test is one of the pairs: each value of a parameter meets each of every other's.

    With all others given, one of the storages has the right number; so storages meet all of each
    parameter's values as the others go by.
    """
    return sum(_indices(item).values()) % len(STORAGES) == 0


def _is_sampled(item):
    """Whether a test is of the third that the suite takes: each test has other pools."""
    number = zlib.crc32(item.originalname.encode())
    others = (index for name, index in _indices(item).items() if name != "any_storage")
    return (number + sum(others)) % 3 == 0

"""Ctrl-C, a worker's death and a timeout in the middle of each algorithm: typed, still, whole.

Afterwards nobody writes, the next call is right, and nothing is left: `conftest` looks for
segments, threads and descriptors when this module ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import contextmanager

import numpy as np
import psutil
import pytest

import shmcompute as sc
from shmcompute.errors import KernelTimeoutError, WorkerLostError

SIZE = 1 << 18
# Python reports what a handler raises within a callback of a weak reference, such as that in which
# an array's memory goes back, and goes on.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

DELAYS = [3e-5 * 3**step for step in range(6)]  # seconds; the last is 7 ms
NUMBERS = np.random.default_rng(0).random(SIZE)
WORDS = np.random.default_rng(0).integers(0, 10**6, SIZE // 4).astype("U6")


@contextmanager
def interrupt_after(seconds):
    """Ctrl-C some time later, unless the block ends before."""

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def in_out(function):
    """A function whose result goes into the array itself."""
    return lambda arr: function(arr, out=arr)


ON_THREADS = {  # what only reads the array
    "sum": np.sum,
    "mean": np.mean,
    "std": np.std,
    "max": np.max,
    "argmax": np.argmax,
    "cumsum": np.cumsum,
    "sort": np.sort,
    "argsort": np.argsort,
    "parallel_argsort": lambda arr: sc.parallel_argsort(arr, kind="stable"),
    "histogram": lambda arr: np.histogram(arr, 100),
    "bincount": lambda arr: np.bincount((arr.array * 1000).astype(int)),
    "unique": lambda arr: np.unique(arr, return_inverse=True),
    "quantile": lambda arr: np.quantile(arr, [0.1, 0.5]),
    "median": np.median,
    "searchsorted": lambda arr: np.searchsorted(arr, arr.array),
    "nonzero": np.nonzero,
    "clip": lambda arr: np.clip(arr, 0.2, 0.7),
    "reduce": lambda arr: sc.parallel_reduce(
        np.sum, sc.read(arr), combine=np.add, backend="threads"
    ),
}
IN_PLACE = {
    "cumsum": in_out(np.cumsum),
    "scan": lambda arr: sc.parallel_scan(np.maximum, arr),
    "clip": lambda arr: np.clip(arr, 0.2, 0.7, out=arr),
    "apply": lambda arr: sc.parallel_apply(np.sqrt, arr, chunksize=999, backend="threads"),
    "chain": lambda arr: sc.parallel_apply([np.sqrt, np.negative], arr, backend="threads"),
    "sweeps": lambda arr: sc.parallel_iterate(np.sqrt, arr, times=9, backend="threads"),
}


def equal(one, other):
    if isinstance(one, tuple):
        return all(map(equal, one, other))
    return np.array_equal(one, other)


@pytest.mark.parametrize("name", ON_THREADS)
def test_an_interrupt_of_what_reads(name):
    """It comes through, nothing is written, and the next call is right."""
    function, interrupts = ON_THREADS[name], 0
    with sc.SharedArray(NUMBERS) as arr:
        expected = function(arr)
        for delay in DELAYS:
            try:
                with interrupt_after(delay):
                    function(arr)
            except KeyboardInterrupt:
                interrupts += 1
            assert equal(function(arr), expected)
        np.testing.assert_array_equal(arr.array, NUMBERS)
    assert interrupts


@pytest.mark.parametrize("name", IN_PLACE)
def test_an_interrupt_of_what_writes(name):
    """Nobody writes afterwards."""
    function, interrupts = IN_PLACE[name], 0
    with sc.SharedArray(NUMBERS) as arr, sc.SharedArray(NUMBERS) as other:
        function(arr)
        expected = arr.array.copy()
        for delay in DELAYS:
            arr.array[:] = NUMBERS
            try:
                with interrupt_after(delay):
                    function(arr)
            except KeyboardInterrupt:
                interrupts += 1
            seen = arr.array.copy()
            other.array[:] = NUMBERS
            function(other)
            np.testing.assert_array_equal(arr.array, seen)
            np.testing.assert_array_equal(other.array, expected)
    assert interrupts


@pytest.mark.parametrize("data", [NUMBERS, WORDS], ids=["numbers", "words"])
def test_an_interrupt_of_a_sort_loses_no_element(data):
    """The array is as it was, or sorted, at whatever moment it comes."""
    interrupts, expected = 0, np.sort(data)
    with sc.SharedArray(data) as arr:
        for delay in (*DELAYS, 0.02):
            arr.array[:] = data
            try:
                with interrupt_after(delay):
                    sc.parallel_sort(arr)
            except KeyboardInterrupt:
                interrupts += 1
            found = arr.array
            assert np.array_equal(found, data) or np.array_equal(found, expected)
    assert interrupts


KINDS = {
    "processes": {},
    "caller": {"caller_runs": True},
    "threads": {"backend": "threads"},
    "serial": {"backend": "serial"},
}


@pytest.fixture(scope="module")
def pool(request):
    """A pool of these tests' own, whose workers are replaced again and again."""
    with sc.Pool(2, **KINDS[request.param]) as pool:
        yield pool.ready()


def of(*kinds):
    return pytest.mark.parametrize("pool", kinds, indirect=True)


def strike(how):
    """What happens in the middle of a kernel."""
    if how == "death" and multiprocessing.parent_process() is not None:  # not the caller
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "time":
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass
    if how.isdigit():
        os.kill(int(how), signal.SIGINT)


def write(x, how, start, at):
    x += 1
    if start <= at < start + len(x) or how in ("time", "death"):
        strike(how)
    x += 1


def smooth(new, old, how, start, at):
    new[:] = old[1:-1]
    write(new, how, start, at)


def draw(x, rng, how, start, at):
    x[:] = rng.random(len(x))
    write(x, how, start, at)


def total(x, how, start, at):
    write(x, how, start, at)
    return x.sum()


def loop(first, last, x, how, at):
    write(x[first:last], how, first, at)


COUNT = 400


def halo(arr, how, **more):
    with sc.SharedArray.zeros(COUNT + 2) as old:
        sc.parallel_apply(smooth, arr, sc.halo(old, 1), how, sc.offset, COUNT - 1, **more)


CALLS = {
    "apply": lambda arr, how, **more: sc.parallel_apply(
        write, arr, how, sc.offset, COUNT - 1, **more
    ),
    "halo": halo,
    "rng": lambda arr, how, **more: sc.parallel_apply(
        draw, arr, sc.rng(0), how, sc.offset, COUNT - 1, **more
    ),
    "for": lambda arr, how, **more: sc.parallel_for(
        loop, 0, COUNT, sc.shared(arr), how, COUNT - 1, **more
    ),
    "reduce": lambda arr, how, **more: sc.parallel_reduce(
        total, arr, how, sc.offset, COUNT - 1, combine=np.add, **more
    ),
}


def still(arr, pool, before):
    """Nobody writes, who has ended is gone, and the pool works."""
    seen = arr.array.copy()
    for pid in set(before) - set(pool.pids):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"
    with sc.SharedArray.zeros(COUNT) as other:
        sc.parallel_apply(write, other, "nothing", 0, 0, pool=pool)
        assert (other.array == 2).all()
    np.testing.assert_array_equal(arr.array, seen)


@of("processes", "caller")
@pytest.mark.parametrize("name", CALLS)
def test_a_workers_death(pool, name):
    pids = pool.pids
    with sc.SharedArray.zeros(COUNT) as arr:
        with pytest.raises(WorkerLostError, match="SIGKILL") as caught:
            CALLS[name](arr, "death", pool=pool, chunksize=50)
        assert caught.value.chunks
        still(arr, pool, pids)


@of("processes", "caller", "threads", "serial")
@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt(pool, name):
    pids = pool.pids
    with sc.SharedArray.zeros(COUNT) as arr:
        with pytest.raises(KeyboardInterrupt):
            CALLS[name](arr, str(os.getpid()), pool=pool)
        still(arr, pool, pids)


@of("processes", "threads")
@pytest.mark.parametrize("name", CALLS)
def test_a_timeout(pool, name):
    with sc.SharedArray.zeros(COUNT) as arr:
        CALLS[name](arr, "nothing", pool=pool.ready(), chunksize=10)  # else the time may pass there
        pids = pool.pids
        with pytest.raises(KernelTimeoutError, match=r"timeout of 0\.1 s") as caught:
            CALLS[name](arr, "time", pool=pool, chunksize=10, timeout=0.1)
        assert caught.value.chunks
        still(arr, pool, pids)


def test_a_scan_on_processes_that_lose_one():
    """Its workers are killed from outside, at several moments."""
    with sc.Pool(2, start_method="fork") as pool, sc.SharedArray(NUMBERS) as arr:
        expected = np.maximum.accumulate(NUMBERS)
        for delay in (1e-4, 1e-3, 3e-3):
            arr.array[:] = NUMBERS
            pids = pool.ready().pids

            def kill(*_, pids=pids):
                os.kill(pids[0], signal.SIGKILL)

            before = signal.signal(signal.SIGALRM, kill)
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                sc.parallel_scan(np.maximum, arr, pool=pool)
            except WorkerLostError as error:
                assert error.exitcode == -signal.SIGKILL
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)
            arr.array[:] = NUMBERS
            sc.parallel_scan(np.maximum, arr, pool=pool)
            np.testing.assert_array_equal(arr.array, expected)

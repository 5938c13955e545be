"""Sweeps that end before they are done: typed, said after which sweep, and nobody writes on."""

from __future__ import annotations

import os
import signal

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import KernelTimeoutError, WorkerLostError

_raise = nb.types.ExternalFunction("raise", nb.types.int32(nb.types.int32))
_kill = nb.types.ExternalFunction("kill", nb.types.int32(nb.types.int32, nb.types.int32))
FOREVER = 10**9
KINDS = {
    "processes": {},
    "fork": {"start_method": "fork"},
    "poll": {},
    "caller": {"caller_runs": True},
    "threads": {"backend": "threads"},
    "threads-poll": {"backend": "threads"},
    "serial": {"backend": "serial"},
}


@pytest.fixture
def pool(request, monkeypatch):
    """A pool of the test's own: its workers may be replaced."""
    if request.param.endswith("poll"):
        monkeypatch.setenv("SHMCOMPUTE_WAIT", "poll")
    with sc.Pool(2, **KINDS[request.param]) as pool:
        yield pool.ready()


def of(*kinds):
    return pytest.mark.parametrize("pool", kinds, indirect=True)


@nb.njit
def count(x):
    for i in range(x.size):
        x[i] += 1


@nb.njit
def die_at(x, start, when, at):
    for i in range(x.size):
        x[i] += 1
        if start + i == at and x[i] == when:
            _raise(9)


@nb.njit
def interrupt_at(x, start, when, at, pid):
    for i in range(x.size):
        x[i] += 1
        if start + i == at and x[i] == when:
            _kill(pid, 2)


def count_python(x):
    x += 1


def works(pool):
    with sc.SharedArray.zeros(100) as arr:
        sc.parallel_iterate(count, arr, times=10, pool=pool)
        assert (arr.array == 10).all()


def stands_still(arr, pool):
    """Nobody writes to an array: workers that are asked for something else have answered."""
    seen = arr.array.copy()
    works(pool)
    np.testing.assert_array_equal(arr.array, seen)


@of("processes", "fork", "poll", "caller")
def test_a_workers_death_says_after_which_sweep(pool):
    with sc.SharedArray.zeros(1000) as arr:
        with pytest.raises(WorkerLostError, match=r"after sweep \d+; all that") as caught:
            # The last index: that of a worker also where the caller takes a share.
            sc.parallel_iterate(die_at, arr, sc.offset, 200, 999, times=FOREVER, pool=pool)
        assert caught.value.exitcode == -signal.SIGKILL
        assert caught.value.sweep < 200
        assert caught.value.chunks == [(0, 1000)]
        stands_still(arr, pool)


@of("processes", "caller", "threads", "serial")
@pytest.mark.parametrize("kernel", [count, count_python], ids=["jitted", "python"])
def test_a_timeout_is_for_all_sweeps(pool, kernel):
    with sc.SharedArray.zeros(1000) as arr:
        sc.parallel_iterate(kernel, arr, times=2, pool=pool)  # or the time may pass in loading
        with pytest.raises(KernelTimeoutError, match=r"timeout of 0\.2 s, after sweep") as caught:
            sc.parallel_iterate(kernel, arr, times=FOREVER, pool=pool, timeout=0.2)
        assert 0 <= caught.value.sweep <= arr.array.max()
        stands_still(arr, pool)


@of("processes", "caller", "threads")
def test_time_enough(pool):
    with sc.SharedArray.zeros(1000) as arr:
        sc.parallel_iterate(count, arr, times=500, pool=pool, timeout=60)
        assert (arr.array == 500).all()


@of("processes", "poll", "caller", "threads", "threads-poll", "serial")
def test_an_interrupt_ends_it(pool):
    args = sc.offset, 500, 999, os.getpid()
    with sc.SharedArray.zeros(1000) as arr:
        with pytest.raises(KeyboardInterrupt):
            sc.parallel_iterate(interrupt_at, arr, *args, times=FOREVER, pool=pool)
        assert arr.array.min() < FOREVER
        stands_still(arr, pool)


def test_a_call_beside_another_one_in_threads(pools):
    """It is run by its own thread alone."""
    pool, inner = pools["threads"], []

    def meanwhile(x):
        with sc.SharedArray.zeros(200) as arr:
            sc.parallel_iterate(count, arr, times=300, pool=pool)
            inner.append((arr.array == 300).all())

    with sc.SharedArray.zeros(2) as arr:
        future = pool.submit(meanwhile, arr)
        sc.parallel_iterate(count, arr, times=1000, pool=pool)
        future.result()
    assert inner == [True]


def test_within_a_kernel_it_is_run_there(pools):
    def outer(x):
        with sc.SharedArray.zeros(30) as arr:
            sc.parallel_iterate(count, arr, times=20)
            x += arr.array.sum()

    with sc.SharedArray.zeros(2) as arr:
        sc.parallel_apply(outer, arr, pool=pools["threads"])
        assert arr.array.tolist() == [600, 600]

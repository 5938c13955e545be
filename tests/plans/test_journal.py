"""Exactly once, in place: what a dead worker left is put back and run again."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from methods import METHODS

import shmcompute as sc
from shmcompute.config import START_METHODS
from shmcompute.errors import WorkerLostError
from shmcompute.plans.journal import Journal
from shmcompute.system import context


@pytest.fixture(params=[*METHODS, "poll", "caller"])
def own_pool(request, monkeypatch):
    if request.param == "poll":
        monkeypatch.setenv("SHMCOMPUTE_WAIT", "poll")
    method = request.param if request.param in START_METHODS else None
    with sc.Pool(2, start_method=method, caller_runs=request.param == "caller") as pool:
        yield pool.ready()


def _dies_once(flag):
    """A kernel whose first call in a worker dies half-way."""
    parent = os.getpid()

    def kernel(x, start):
        x[: x.size // 2] *= 3
        if start and os.getpid() != parent:
            try:
                os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        x[x.size // 2 :] *= 3
        x += 1

    return kernel


@pytest.mark.parametrize("schedule", ["static", "dynamic", "guided"])
def test_what_a_dead_worker_left_is_done_by_others(own_pool, tmp_path, schedule):
    with sc.SharedArray(np.arange(1000.0)) as arr:
        sc.parallel_apply(
            _dies_once(str(tmp_path / "died")),
            arr,
            sc.offset,
            chunksize=100,
            schedule=schedule,
            retries=1,
            pool=own_pool,
        )
        # Of a dynamic schedule the caller may have taken all.
        assert (tmp_path / "died").exists() or schedule != "static"
        np.testing.assert_array_equal(arr.array, np.arange(1000.0) * 3 + 1)


def test_a_kernel_that_always_dies_leaves_what_was(own_pool):
    parent = os.getpid()

    def kernel(x, start):
        x[:] = -1
        if os.getpid() != parent and start == 4:
            os._exit(0)

    with sc.SharedArray(np.arange(8.0)) as arr:
        with pytest.raises(WorkerLostError) as caught:
            sc.parallel_apply(kernel, arr, sc.offset, chunksize=4, retries=2, pool=own_pool)
        assert (4, 8) in caught.value.chunks
        np.testing.assert_array_equal(arr.array[4:], np.arange(4.0, 8.0))


def test_a_chunk_that_raised_reads_as_before(own_pool):
    def kernel(x):
        x[0] = 99
        raise ValueError("half-way")

    with sc.SharedArray(np.arange(8.0)) as arr:
        with pytest.raises(ValueError, match="half-way"):
            sc.parallel_apply(kernel, arr, retries=1, pool=own_pool)
        np.testing.assert_array_equal(arr.array, np.arange(8.0))


@pytest.mark.parametrize("retries", [-1, 1.5, "1", True])
def test_retries_is_a_number(pools, retries):
    with (
        sc.SharedArray(np.zeros(3)) as arr,
        pytest.raises((TypeError, ValueError), match="retries"),
    ):
        sc.parallel_apply(np.negative, arr, retries=retries, pool=pools["serial"])


def test_other_backends_take_it(pools):
    for name in ("threads", "serial"):
        x = np.ones(10)
        sc.parallel_apply(np.negative, x, retries=3, pool=pools[name])
        np.testing.assert_array_equal(x, -1.0)


@pytest.mark.parametrize("dtype", ["f8", "S3", "i2,f8", "?", "c16", "f2"])
def test_a_journal_gives_back_bit_by_bit(dtype):
    x = np.frombuffer(np.random.default_rng(1).bytes(2400), np.uint8)
    itemsize = np.dtype(dtype).itemsize
    old = x[: 2400 // itemsize * itemsize].view(dtype).copy()
    parts = [old[::2], old[1:4]]
    before = [part.tobytes() for part in parts]
    journal = Journal.create(2, 1, 5000)
    journal.keep(1, parts)
    assert journal.undone() == [0, 1]
    for part in parts:
        part[...] = np.zeros((), dtype)
    journal.restore(1, parts)
    assert [part.tobytes() for part in parts] == before
    journal.commit(0)
    assert journal.undone() == [1]


@pytest.mark.parametrize("row", [0, 253, 254, 255, 256, 999])
def test_a_chunk_that_any_worker_has_begun_is_not_done(row, monkeypatch):
    """However many there are."""
    monkeypatch.setattr(context, "worker", row)
    part, journal = np.arange(16), Journal.create(3, 1000, 128)
    journal.keep(1, [part])
    assert journal.undone() == [0, 1, 2]
    part[:] = 7
    journal.restore(1, [part])
    np.testing.assert_array_equal(part, np.arange(16))
    journal.keep(1, [part])
    journal.commit(1)
    journal.restore(1, [part])
    assert journal.undone() == [0, 2]

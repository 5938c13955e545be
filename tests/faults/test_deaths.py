"""Workers die at any moment, in any way: a typed error, no one writes, and the next call works."""

from __future__ import annotations

import os
import signal

import deaths
import kernels
import numpy as np
import pytest
from deaths import ENDS, POINTS, doomed, told
from harness import made, works

import shmcompute as sc
from shmcompute.errors import KernelTimeoutError, WorkerLostError

JOURNAL = [point for point in POINTS if "journal" in point or "commit" in point]
PLAIN = [point for point in POINTS if point not in JOURNAL]
RAN = ("running", "telling an error")
SOAK = pytest.mark.soak


def _cases(points, waits=("futex", "poll")):
    """Each point in every way; most of them in the soak."""
    found = []
    for number, point in enumerate(points):
        for way in ENDS:
            marks = () if way == ENDS[number % len(ENDS)] else SOAK
            found += [pytest.param("fork", each, point, way, marks=marks) for each in waits]
        end = waits[number % 2], point, ENDS[(number + 1) % len(ENDS)]
        found += [pytest.param("forkserver", *end), pytest.param("spawn", *end, marks=SOAK)]
    return found


def _stay(x):
    x *= 1


@pytest.mark.long
@pytest.mark.parametrize(("method", "waiting", "point", "way"), _cases(PLAIN))
def test_a_worker_that_ends_is_an_error_that_tells_how(method, waiting, point, way):
    kernel = kernels.divide if point == "telling an error" else _stay
    with sc.SharedArray(np.arange(10.0)) as arr, doomed(point, way):
        with made(method, waiting, workers=1) as pool:
            with pytest.raises(WorkerLostError) as caught:
                sc.parallel_apply(kernel, arr, pool=pool)
            code, words = told(way)
            assert caught.value.exitcode == code
            assert words in str(caught.value)
            assert caught.value.chunks == ([(0, 10)] if point in RAN else [])
            assert (kernel.__name__ in str(caught.value)) == (point in RAN)
            deaths.spare()
            works(pool)
        np.testing.assert_array_equal(arr.array, np.arange(10.0))


@pytest.mark.long
@pytest.mark.parametrize(("method", "waiting", "point", "way"), _cases(JOURNAL))
def test_with_retries_it_changes_nothing(method, waiting, point, way, tmp_path):
    """Also in the middle of the commit: each chunk is done exactly once."""
    flag = tmp_path / "ended"
    with (
        sc.SharedArray(np.arange(40.0)) as arr,
        doomed(point, way, flag),
        made(method, waiting) as pool,
    ):
        sc.parallel_apply(kernels.affine_python, arr, 3.0, 1.0, chunksize=4, retries=1, pool=pool)
        assert flag.exists()
        np.testing.assert_array_equal(arr.array, np.arange(40.0) * 3 + 1)


@pytest.mark.long
@pytest.mark.parametrize("waiting", ["futex", pytest.param("poll", marks=SOAK)])
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_that_is_stopped_overruns(point, waiting, monkeypatch):
    """Wherever it stands still: the call ends, and the worker is replaced."""
    kernel = kernels.divide if point == "telling an error" else _stay
    options = {"retries": 1} if point in JOURNAL else {}
    monkeypatch.setattr("shmcompute.backends.processes.worker_process.LEAVE", 0.1)
    with sc.SharedArray(np.arange(10.0)) as arr, doomed(point, "SIGSTOP"):
        with made("fork", waiting) as pool:
            if point in ("starting", "saying that it is ready"):
                deaths.await_stop(pool.pids)
            else:
                pool.ready()
            with pytest.raises((KernelTimeoutError, WorkerLostError)) as caught:
                sc.parallel_apply(kernel, arr, timeout=0.3, **options, pool=pool)
            if point in ("running", *JOURNAL):
                assert isinstance(caught.value, KernelTimeoutError)
            if isinstance(caught.value, KernelTimeoutError):
                assert caught.value.chunks == [(0, 5), (5, 10)]
            deaths.spare()
            works(pool)
        np.testing.assert_array_equal(arr.array, np.arange(10.0))


@pytest.mark.soak
def test_an_idle_worker_that_is_stopped_overruns(mortal):
    """In each of: a plan it has, a plan it has not, and one that is larger than the pipe holds."""
    with sc.SharedArray(np.arange(10.0)) as arr:
        for more in ([], [sc.whole(np.zeros(1000))], [sc.whole(np.zeros(1_000_000))]):
            sc.parallel_apply(_nothing, arr, pool=mortal)
            os.kill(mortal.pids[0], signal.SIGSTOP)
            with pytest.raises(KernelTimeoutError):
                sc.parallel_apply(_nothing, arr, *more, timeout=0.2, pool=mortal)
        works(mortal)


def _nothing(x, more=None):
    pass

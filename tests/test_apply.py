"""The front door: what a call takes, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import affine

import shmcompute as sc
from shmcompute.errors import ClosedError, KernelTimeoutError


def test_it_returns_none(any_pool):
    with sc.SharedArray(np.ones(3)) as arr:
        assert sc.parallel_apply(np.negative, arr, pool=any_pool) is None


def test_threads_and_serial_take_a_plain_array(pools):
    for name in ("threads", "serial"):
        x = np.arange(10.0)
        sc.parallel_apply(affine, x, 3.0, 1.0, pool=pools[name])
        np.testing.assert_array_equal(x, np.arange(10.0) * 3 + 1)


def test_words_that_are_not_known_list_those_that_are():
    with sc.SharedArray(np.ones(3)) as arr:
        with pytest.raises(ValueError, match="'static', 'dynamic', 'guided'"):
            sc.parallel_apply(np.negative, arr, schedule="fair")
        with pytest.raises(ValueError, match="'processes', 'threads', 'serial'"):
            sc.parallel_apply(np.negative, arr, backend="gpu")
        with pytest.raises(ValueError, match="chunksize"):
            sc.parallel_apply(np.negative, arr, chunksize=0)
        with pytest.raises(TypeError, match="pool"):
            sc.parallel_apply(np.negative, arr, pool="processes")
        for timeout in (0, -1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                sc.parallel_apply(np.negative, arr, timeout=timeout)
        for timeout in ("1", True):
            with pytest.raises(TypeError, match="timeout"):
                sc.parallel_apply(np.negative, arr, timeout=timeout)
        sc.parallel_apply(np.negative, arr, timeout=float("inf"))


def test_pool_and_backend_must_agree(pools):
    with sc.SharedArray(np.ones(3)) as arr:
        sc.parallel_apply(np.negative, arr, pool=pools["serial"], backend="serial")
        with pytest.raises(ValueError, match="give one"):
            sc.parallel_apply(np.negative, arr, pool=pools["serial"], backend="threads")


def test_a_plan_tells_its_chunks(pools):
    with sc.SharedArray(np.ones(10)) as arr:
        step = sc.plan(np.negative, arr, chunksize=4, pool=pools["serial"])
        assert step.chunks == ((0, 4), (4, 8), (8, 10))
        assert "negative: 3 chunks" in repr(step)


def test_a_plan_refuses_views_of_a_closed_array(process_pool):
    arr = sc.SharedArray(np.ones(10), storage="shm")
    view = arr.array[::2]
    step = sc.plan(np.negative, view, pool=process_pool)
    step()
    arr.close()
    with pytest.raises(ClosedError):
        step()
    with pytest.raises(ClosedError):
        sc.parallel_apply(np.negative, view, pool=process_pool)
    np.testing.assert_array_equal(view, -np.ones(5))


@pytest.mark.parametrize("name", ["threads", "serial"])
def test_a_timeout_is_looked_at_between_chunks(pools, name):
    """The first chunks overrun; the last is not reached."""
    import threading

    late = threading.Event()

    def kernel(x):
        late.wait(0.3)
        x += 1

    x = np.zeros(6)
    with pytest.raises(KernelTimeoutError) as caught:
        sc.parallel_apply(kernel, x, chunksize=1, timeout=0.01, pool=pools[name])
    assert (4, 5) in caught.value.chunks
    for start, stop in caught.value.chunks:
        assert (x[start:stop] == 0).all()

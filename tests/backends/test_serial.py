"""Serial calls of jitted kernels, by Python first and then by machine code."""

from __future__ import annotations

import threading

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.backends.native_runner import native_runner


@nb.njit
def scale(x, factor):
    for i in range(x.size):
        x[i] *= factor


@nb.njit
def refuse(x, value):
    for i in range(x.size):
        if x[i] == value:
            raise ValueError("found it")
        x[i] += 1


@nb.njit
def increase(x, number):
    for i in range(x.size):
        x[i] += number


def python(x):
    x += 1


@pytest.fixture
def serial():
    with sc.Pool(backend="serial") as pool:
        yield pool


@pytest.fixture
def native(monkeypatch):
    """The runs by machine code: each adds the name of its plan."""
    runner, seen = native_runner(), []
    real = type(runner).run

    def noted(self, plan, address, values):
        done = real(self, plan, address, values)
        seen.append(plan.name if done else None)
        return done

    monkeypatch.setattr(type(runner), "run", noted)
    return seen


def test_machine_code_runs_what_was_called_often(serial, native):
    serial.running.pays = 10
    with sc.SharedArray(np.ones(6)) as arr:
        for _ in range(5):
            sc.parallel_apply(scale, arr, 2.0, chunksize=3, pool=serial)
        assert native == ["scale"]  # the fifth: eight chunks were not enough, and ten are
        for factor in (0.5, 0.25):  # numbers come with each call
            sc.parallel_apply(scale, arr, factor, chunksize=3, pool=serial)
        assert native == ["scale"] * 3
        np.testing.assert_array_equal(arr.array, np.full(6, 4.0))


def test_arrays_of_one_kind_share_it(serial, native):
    serial.running.pays = 2
    arrays = [sc.SharedArray(np.ones(size)) for size in (4, 5, 6)]
    for arr in arrays:
        sc.parallel_apply(scale, arr, 3.0, pool=serial)
    assert native == ["scale"] * 2
    for arr in arrays:
        assert (arr.array == 3).all()
        arr.close()


def test_python_kernels_stay_with_python(serial, native):
    serial.running.pays = 0
    for _ in range(3):
        sc.parallel_apply(python, np.zeros(3), pool=serial)
    assert native == []


def test_what_a_kernel_raises_names_its_chunk_and_ends_the_call(serial, native):
    serial.running.pays = 0
    with sc.SharedArray(np.arange(9.0)) as arr:
        with pytest.raises(ValueError, match="found it") as caught:
            sc.parallel_apply(refuse, arr, 4.0, chunksize=3, pool=serial)
        assert any("in chunk [3, 6)" in note for note in caught.value.__notes__)
        np.testing.assert_array_equal(arr.array, [1, 2, 3, 4, 4, 5, 6, 7, 8])
        sc.parallel_apply(refuse, arr, -1.0, chunksize=3, pool=serial)
        assert arr[8] == 9
    assert native[-1] == "refuse"


def test_a_recompiled_kernel_is_the_new_one(serial, native):
    serial.running.pays = 0
    step = 1.0

    @nb.njit
    def add(x):
        for i in range(x.size):
            x[i] += step

    with sc.SharedArray(np.zeros(4)) as arr:
        sc.parallel_apply(add, arr, pool=serial)
        step = 10.0
        add.recompile()
        sc.parallel_apply(add, arr, pool=serial)
        assert (arr.array == 11).all()


def test_python_runs_it_while_another_thread_has_the_use_of_it(serial, native):
    serial.running.pays = 0
    with sc.SharedArray(np.ones(3)) as arr:
        sc.parallel_apply(scale, arr, 2.0, pool=serial)
        with native_runner()._used:  # so does a forked child find it, whose parent was in a call
            sc.parallel_apply(scale, arr, 2.0, pool=serial)
        sc.parallel_apply(scale, arr, 2.0, pool=serial)
        assert (arr.array == 8).all()
    assert native == ["scale", None, "scale"]


def test_threads_at_the_same_time(serial):
    serial.running.pays = 0
    arrays = [sc.SharedArray(np.zeros(50)) for _ in range(4)]

    def add(number, arr):
        for _ in range(200):
            sc.parallel_apply(increase, arr, float(number), pool=serial)

    threads = [threading.Thread(target=add, args=case) for case in enumerate(arrays)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, arr in enumerate(arrays):
        assert (arr.array == 200 * number).all()
        arr.close()


@pytest.mark.parametrize("nogil", [False, True])
def test_the_gil_is_held_where_the_kernel_holds_it(serial, nogil, monkeypatch):
    serial.running.pays = 0
    runner, seen = native_runner(), []
    ways = {
        key: lambda address, key=key, way=way: (seen.append(key), way(address))[1]
        for key, way in runner._run.items()
    }
    monkeypatch.setattr(runner, "_run", ways)
    kernel = nb.njit(increase.py_func, nogil=nogil)
    with sc.SharedArray(np.zeros(3)) as arr:
        sc.parallel_apply(kernel, arr, 2.0, pool=serial)
        assert (arr.array == 2).all()
    assert seen == [nogil]


@pytest.mark.parametrize("backend", ["serial", "threads"])
def test_scratch_is_of_one_thread_whoever_else_calls(backend):
    meeting, rooms = threading.Barrier(2, timeout=60), []

    def meet(_, room):
        rooms.append(room.ctypes.data)
        meeting.wait()

    with sc.SharedArray(np.zeros(2)) as arr, sc.Pool(2, backend=backend) as pool:
        step = sc.plan(meet, arr, sc.scratch(3), chunksize=2, pool=pool)
        threads = [threading.Thread(target=step) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(rooms)) == 2


def test_scratch_stays_with_python(serial, native):
    serial.running.pays = 0

    @nb.njit
    def fill(x, room):
        for i in range(x.size):
            x[i] = room[i]
            room[i] += 1

    with sc.SharedArray(np.zeros(2)) as arr:
        for count in range(3):
            sc.parallel_apply(fill, arr, sc.scratch(2), pool=serial)
            assert (arr.array == count).all()
    assert native == []

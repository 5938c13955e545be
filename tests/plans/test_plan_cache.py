"""Calls like an earlier one are not bound anew, and never see what has changed since."""

from __future__ import annotations

import functools
import gc
import itertools
import sys
from types import ModuleType

import cloudpickle
import kernels
import numba as nb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shmcompute as sc
from shmcompute import storage
from shmcompute.backends.processes.protocol import pickling
from shmcompute.errors import ClosedError
from shmcompute.plans.plan_cache import KEPT, PlanCache, is_imported


@pytest.fixture
def bound(monkeypatch):
    """How often a call was bound."""
    calls = []
    real = PlanCache.build
    monkeypatch.setattr(PlanCache, "build", lambda *args: (calls.append(args), real(*args))[1])
    return calls


def test_the_same_call_is_bound_once_whatever_its_numbers(any_pool, bound):
    with sc.SharedArray(np.zeros(8)) as arr:
        for value in (1.0, 2.0, -0.5):
            sc.parallel_apply(kernels.affine, arr, 0.0, value, pool=any_pool)
            np.testing.assert_array_equal(arr.array, value)
        assert len(bound) == 1
        sc.parallel_apply(kernels.affine, arr, 0, 7, pool=any_pool)  # of another type
        np.testing.assert_array_equal(arr.array, 7)
        sc.parallel_apply(kernels.affine, arr, 0.0, 8.0, chunksize=3, pool=any_pool)
        np.testing.assert_array_equal(arr.array, 8)
        assert len(bound) == 3


def test_markers_are_told_apart(any_pool, bound):
    with sc.SharedArray(np.ones(4)) as a, sc.SharedArray(np.full(4, 2.0)) as b:
        for _ in range(2):
            sc.parallel_apply(np.add, a, sc.read(a), sc.read(b), pool=any_pool)
            sc.parallel_apply(np.add, b, sc.read(b), sc.read(a), pool=any_pool)
        assert len(bound) == 2
        np.testing.assert_array_equal(a.array, 8.0)
        np.testing.assert_array_equal(b.array, 13.0)


def test_a_closed_array_is_refused_however_often_it_was_used(any_pool):
    arr = sc.SharedArray(np.zeros(4))
    for _ in range(2):
        sc.parallel_apply(kernels.affine, arr, 1.0, 1.0, pool=any_pool)
    arr.close()
    with pytest.raises(ClosedError):
        sc.parallel_apply(kernels.affine, arr, 1.0, 1.0, pool=any_pool)


def test_python_functions_are_taken_as_they_are_now(any_pool):
    """Their globals and closures may have changed."""
    gain = 1.0

    def kernel(x):
        x += gain

    with sc.SharedArray(np.zeros(4)) as arr:
        sc.parallel_apply(kernel, arr, pool=any_pool)
        gain = 10.0
        sc.parallel_apply(kernel, arr, pool=any_pool)
        np.testing.assert_array_equal(arr.array, 11.0)


def test_python_functions_that_workers_import_are_bound_once(any_pool, bound):
    """They go by name, so a worker has the same each time."""
    with sc.SharedArray(np.zeros(4)) as arr:
        for value in (1.0, 2.0):
            sc.parallel_apply(kernels.affine_python, arr, 0.0, value, pool=any_pool)
            np.testing.assert_array_equal(arr.array, value)
        assert len(bound) == 1


@pytest.mark.parametrize("home", ["__main__", "module", "package.module"])
def test_python_functions_that_go_by_value_go_anew(pools, monkeypatch, home):
    """Of the program, of a module that has another by that name, of one that is registered."""
    namespace = {"__name__": home, "gain": 1.0}
    exec("def kernel(x):\n    x += gain\n", namespace)
    module = ModuleType(home)
    kernel = namespace["kernel"]
    kernel.__module__ = home
    if home != "__main__":
        module.kernel = kernel if home == "package.module" else abs
        monkeypatch.setitem(sys.modules, home, module)
    if home == "package.module":
        assert is_imported(kernel)
        package = ModuleType("package")
        monkeypatch.setitem(sys.modules, "package", package)
        cloudpickle.register_pickle_by_value(package)
    try:
        assert not is_imported(kernel)
        with sc.SharedArray(np.zeros(4)) as arr:
            sc.parallel_apply(kernel, arr, pool=pools["forkserver"])
            namespace["gain"] = 10.0
            sc.parallel_apply(kernel, arr, pool=pools["forkserver"])
            np.testing.assert_array_equal(arr.array, 11.0)
    finally:
        if home == "package.module":
            cloudpickle.unregister_pickle_by_value(package)


def test_no_more_is_kept_than_a_bound(pools):
    pool = pools["serial"]
    recent = pool.plans
    arrays = [sc.SharedArray(np.zeros(4)) for _ in range(100)]
    for arr in arrays:
        sc.parallel_apply(np.negative, arr, pool=pool)
    with sc.SharedArray(np.zeros(3)) as arr:
        for chunksize in range(1, KEPT + 100):
            sc.parallel_apply(np.negative, arr, chunksize=chunksize, pool=pool)
        assert len(recent._entries) <= KEPT
        assert len(recent._keys[id(arr)]) <= KEPT
    del arr
    while arrays:
        arrays.pop()
    gc.collect()
    assert not recent._entries


def test_bad_options_are_refused_after_a_good_call(pools):
    with sc.SharedArray(np.zeros(4)) as arr:
        sc.parallel_apply(np.negative, arr, pool=pools["serial"])
        with pytest.raises(TypeError, match="axis"):
            sc.parallel_apply(np.negative, arr, axis=[0], pool=pools["serial"])
        with pytest.raises(ValueError, match="schedule"):
            sc.parallel_apply(np.negative, arr, schedule="fair", pool=pools["serial"])


def test_a_kernel_that_is_compiled_anew_is_new_for_threads_too(pools):
    """Their variant of it goes along."""
    namespace = {"nb": nb, "GAIN": 2.0}
    source = "@nb.njit\ndef kernel(x):\n    for i in range(x.size):\n        x[i] = x[i] * GAIN\n"
    exec(source, namespace)
    with sc.SharedArray(np.ones(4)) as arr:
        for gain in (2.0, 10.0):
            namespace["GAIN"] = gain
            namespace["kernel"].recompile()
            sc.parallel_apply(namespace["kernel"], arr, pool=pools["threads"])
        np.testing.assert_array_equal(arr.array, 20.0)


@pytest.mark.parametrize("name", ["processes", "threads"])
@pytest.mark.parametrize("dtype", ["U3", "S3"])
def test_texts_that_lie_otherwise_in_memory_are_of_another_form(name, dtype, pools):
    """Numba takes no fingerprints of them, so nothing tells that their form would do."""

    @nb.njit
    def copy(new, old):
        for i in range(new.size):
            new[i] = old[i]

    texts = np.array([str(i) for i in range(20)], dtype)
    with sc.SharedArray(texts) as old, sc.SharedArray(np.zeros(10, dtype)) as new:
        for part in (old.array[:10], old.array[::2], old.array[10:], old.array[::-2]):
            sc.parallel_apply(copy, new, sc.read(part), pool=pools[name])
            np.testing.assert_array_equal(new.array, part)


@pytest.mark.parametrize("name", ["processes", "threads"])
def test_a_partial_of_a_kernel_that_is_compiled_anew_is_new(name, pools):
    namespace = {"nb": nb, "GAIN": 2.0}
    source = "@nb.njit\ndef kernel(a, x):\n    for i in range(x.size):\n        x[i] *= a * GAIN\n"
    exec(source, namespace)
    kernel = namespace["kernel"]
    with sc.SharedArray(np.ones(4)) as arr:
        for gain in (2.0, 10.0):
            namespace["GAIN"] = gain
            kernel.recompile()
            sc.parallel_apply(functools.partial(kernel, 3.0), arr, pool=pools[name])
        np.testing.assert_array_equal(arr.array, 180.0)


def test_a_plain_whole_array_is_what_it_was_when_bound():
    """One content for all workers, the caller among them."""

    def kernel(x, table):
        x[:] = table[0]

    table = np.ones(8)[::2]
    with sc.Pool(2, caller_runs=True) as pool, sc.SharedArray(np.zeros(8)) as arr:
        step = sc.plan(kernel, arr, sc.whole(table), pool=pool)
        step()
        table[:] = 2
        step()
        np.testing.assert_array_equal(arr.array, 1.0)
        sc.parallel_apply(kernel, arr, sc.whole(table), pool=pool)
        np.testing.assert_array_equal(arr.array, 2.0)


@nb.njit
def _take(x, source):
    x[0] = source[0]


def test_each_call_sees_a_plain_whole_array_as_it_is_then(any_pool):
    plain = np.zeros(3)
    with sc.SharedArray(np.zeros((4, 3))) as arr:
        for value in range(3):
            plain[:] = value
            sc.parallel_apply(_take, arr, sc.whole(plain), pool=any_pool)
            assert arr.array[0, 0] == value
            arr.array[:] = 0
            sc.parallel_apply(np.add, arr, sc.whole(plain), pool=any_pool)
            np.testing.assert_array_equal(arr.array, value)
        sc.parallel_apply(_take, arr, sc.whole(np.full(3, 9.0)), pool=any_pool)
        assert arr.array[0, 0] == 9


def test_each_call_has_its_own_numbers_however_many(any_pool):
    names = ", ".join(f"a{i}" for i in range(70))
    scope = {}
    exec(f"def last(x, {names}):\n    x[0] = a69", scope)
    kernel = nb.njit(scope["last"])
    with sc.SharedArray(np.zeros(2)) as arr:
        for value in range(3):
            sc.parallel_apply(kernel, arr, *[value] * 70, pool=any_pool)
            assert arr.array[0] == value


def test_a_part_without_elements_travels(any_pool):
    def kernel(x):
        assert x.size == 0

    with sc.SharedArray(np.zeros((6, 3, 0))) as arr:
        for view in (arr.array[1:], arr.array[:, 1:2]):
            sc.parallel_apply(kernel, view, pool=any_pool)
            sc.parallel_apply(kernel, sc.split(view, axis=1), pool=any_pool)


@pytest.fixture
def packed(monkeypatch):
    """How often a plan was packed for worker processes."""
    calls = []
    real = pickling.pack
    monkeypatch.setattr(pickling, "pack", lambda plan: (calls.append(plan), real(plan))[1])
    return calls


@nb.njit
def add(x, y, value):
    for i in range(x.shape[0]):
        x[i] += y[i] + value


@nb.njit
def fill(first, last, out, value):
    for i in range(first, last):
        out[i] = value


def test_the_same_view_is_bound_once(any_pool, bound):
    with sc.SharedArray(np.zeros(20)) as arr:
        for value in (1.0, 2.0):
            sc.parallel_apply(kernels.affine, arr.array[3:9], 0.0, value, pool=any_pool)
            sc.parallel_apply(kernels.affine, arr[::-2], 0.0, value, pool=any_pool)
        assert len(bound) == 2
        expected = np.zeros(20)
        expected[3:9] = expected[::-2] = 2
        np.testing.assert_array_equal(arr.array, expected)


def test_views_of_one_kind_are_sent_as_one_plan(pools, packed):
    """Wherever they are, and however long; of another layout they are another plan's."""
    pool = pools["forkserver"]
    packed.clear()
    with sc.SharedArray(np.zeros((9, 100))) as arr, sc.SharedArray(np.zeros(100)) as other:
        for row in range(9):
            for start in (0, 7, 50, 99):
                x, y = arr.array[row, start:], other.array[start:]
                sc.parallel_apply(add, x, sc.read(y), 1.0, pool=pool)
                arr.array[row, start:] += 0.5
        assert len(packed) == 1
        np.testing.assert_array_equal(arr.array[3, [0, 7, 50, 99]], [1.5, 3, 4.5, 6])
        sc.parallel_apply(add, arr.array[::2, 3], sc.read(other.array[:5]), 1.0, pool=pools["fork"])
        np.testing.assert_array_equal(arr.array[:, 3], [2.5, 1.5] * 4 + [2.5])


def test_a_range_is_no_part_of_the_plan(any_pool, bound):
    with sc.SharedArray(np.zeros(30)) as out:
        for first in range(30):
            sc.parallel_for(fill, first, 30 - first // 2, sc.shared(out), first, pool=any_pool)
        expected = np.zeros(30)
        for first in range(30):
            expected[first : 30 - first // 2] = first
        np.testing.assert_array_equal(out.array, expected)
        assert len(bound) == 1


def test_a_partial_of_an_array_is_bound_once_and_ends_with_it(any_pool, bound):
    with sc.SharedArray(np.zeros(5)) as out, sc.SharedArray(np.ones(5)) as table:
        held = functools.partial(_add_all, table)
        for _ in range(3):
            sc.parallel_apply(held, out, pool=any_pool)
        assert len(bound) == 1
        table.array[:] = 2
        sc.parallel_apply(held, out, pool=any_pool)
        np.testing.assert_array_equal(out.array, 25)
        step = sc.plan(held, out, pool=any_pool)
        table.close()
        with pytest.raises(ClosedError):
            sc.parallel_apply(held, out, pool=any_pool)
        with pytest.raises(ClosedError):
            step()
        np.testing.assert_array_equal(out.array, 25)


@nb.njit
def _add_all(table, x):
    for i in range(x.size):
        x[i] += table.sum()


def test_a_view_keeps_no_memory_that_nobody_else_has(any_pool):
    arr = sc.SharedArray(np.zeros(5000))
    name = arr.name
    sc.parallel_apply(kernels.affine, arr.array[1:], 0.0, 1.0, pool=any_pool)
    del arr
    gc.collect()
    assert name not in [segment.handle.name for segment in storage.live()]


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_whatever_is_called_and_closed_in_between_each_call_writes_its_own(pools, data):
    """Segments take the place, the number and the address of others that have ended."""
    pool = pools[data.draw(st.sampled_from(["fork", "caller", "threads"]))]
    arrays, expected = [], []
    for _ in range(data.draw(st.integers(1, 25))):
        if not arrays or data.draw(st.integers(0, 3)) == 0:
            arrays.append(sc.SharedArray(np.zeros((4, 6))))
            expected.append(np.zeros((4, 6)))
        at = data.draw(st.integers(0, len(arrays) - 1))
        if data.draw(st.integers(0, 4)) == 0:
            np.testing.assert_array_equal(arrays[at].array, expected[at])
            arrays.pop(at).close()
            expected.pop(at)
            continue
        rows = slice(data.draw(st.integers(0, 3)), data.draw(st.integers(1, 4)))
        step = data.draw(st.sampled_from([1, 2, -1]))
        value = data.draw(st.sampled_from([1.0, 2.0]))
        kernel = data.draw(st.sampled_from([_add_value, np.add]))
        sc.parallel_apply(kernel, arrays[at].array[rows, ::step], value, pool=pool)
        expected[at][rows, ::step] += value
    for arr, content in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(arr.array, content)
        arr.close()


@nb.njit
def _add_value(x, value):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += value


@nb.njit
def add_ends(x, w):
    for i in range(len(x)):
        x[i] += w[0] + 10 * w[-1]


def test_calls_in_turn_get_an_array_each_in_another_way(any_pool):
    plain = np.arange(1.0, 5.0)
    with sc.SharedArray(plain) as shared, sc.SharedArray.zeros(4) as x:
        ways = {
            "plain": (sc.whole(plain), 41),
            "shared": (sc.whole(shared), 41),
            "view": (sc.whole(shared[1:]), 42),
            "to write": (sc.shared(shared), 41),
            "read": (sc.read(shared), 41),
            "scratch": (sc.scratch(4), 0),
        }
        for names in itertools.permutations(ways, 2):
            for name in names:
                argument, expected = ways[name]
                x[:] = 0
                sc.parallel_apply(add_ends, x, argument, chunksize=4, pool=any_pool)
                assert (x.array == expected).all(), f"{name} in {names}"

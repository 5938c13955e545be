"""Calls that are like an earlier one, and that `==` takes for it, get what is theirs."""

from __future__ import annotations

import functools
import sys
import warnings
from types import ModuleType

import numba as nb
import numpy as np
import pytest

import shmcompute as sc


@nb.njit
def signs(number, x):
    for i in range(x.size):
        x[i] = np.copysign(1.0, number)


@nb.njit
def fill_with_length(x):
    x[:] = len(x)


@nb.njit
def sign_of(number, x):
    return np.copysign(1.0, number)


@nb.njit
def copy_signs(out, x):
    for i in range(out.size):
        out[i] = np.copysign(1.0, x[i])


NUMBERS = [0.0, -0.0, np.nan, -np.nan, np.float32(0), np.float32(-0.0)]
PLAIN = np.dtype([("a", "f8")])
RECORD = np.dtype((np.record, PLAIN))


@pytest.fixture
def imported(monkeypatch):
    """Kernels of a module, so that their calls are known again."""
    module = ModuleType("alike_kernels")
    exec("def nothing(*_): pass\ndef attribute(out, x): x[0].a\n", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("name", ["serial", "threads", "caller"])
def test_partials_of_numbers_that_differ_in_their_sign_alone(name, pools):
    pool = pools[name]
    with sc.SharedArray(np.zeros(5)) as arr:
        for number in NUMBERS * 2:
            sign = np.copysign(1.0, number)
            sc.parallel_apply(functools.partial(signs, number), arr, pool=pool)
            np.testing.assert_array_equal(arr.array, sign)
            kernel = functools.partial(sign_of, number)
            assert sc.parallel_reduce(kernel, arr, combine=np.minimum, pool=pool) == sign


def test_boundaries_that_differ_in_their_sign_alone(pools):
    with sc.SharedArray(np.zeros(5)) as arr, sc.SharedArray(np.zeros(5)) as out:
        for number in NUMBERS * 2:
            padded = sc.halo(arr, (1, 0), boundary=number)
            sc.parallel_apply(copy_signs, out, padded, pool=pools["threads"])
            assert out.array[0] == np.copysign(1.0, number)


@pytest.mark.parametrize("marker", [sc.split, sc.read, sc.whole, sc.shared])
def test_records_are_told_from_what_lies_alike(marker, pools, imported):
    with sc.SharedArray(np.zeros(3, PLAIN)) as arr, sc.SharedArray(np.zeros(3)) as out:
        for dtype in (PLAIN, RECORD) * 2:
            given = out, marker(arr.array.view(dtype))
            if dtype is RECORD:
                sc.parallel_apply(imported.attribute, *given, pool=pools["serial"])
            else:
                with pytest.raises(AttributeError):
                    sc.parallel_apply(imported.attribute, *given, pool=pools["serial"])


@pytest.mark.parametrize("made", [sc.scratch, sc.per_chunk])
def test_memory_of_records_is_told_from_what_lies_alike(made, pools, imported):
    with sc.SharedArray(np.zeros(3)) as out:
        for dtype in (RECORD, PLAIN):
            args = imported.attribute, out, made(2, dtype)
            if dtype is RECORD:
                outputs = sc.parallel_apply(*args, pool=pools["serial"])
                if outputs is not None:
                    outputs.close()
            else:
                with pytest.raises(AttributeError):
                    sc.parallel_apply(*args, pool=pools["serial"])


@pytest.mark.parametrize("axis", [True, 1.0])
def test_a_bad_axis_of_a_marker_is_refused_after_a_good_one(axis, pools, imported):
    with sc.SharedArray(np.zeros((3, 4))) as arr:
        sc.parallel_apply(imported.nothing, sc.read(arr, axis=1), pool=pools["serial"])
        with pytest.raises(TypeError, match="axis"):
            sc.parallel_apply(imported.nothing, sc.read(arr, axis=axis), pool=pools["serial"])


@pytest.mark.parametrize("bad", [{"axis": (0, True)}, {"chunksize": (2, 1.0)}])
def test_bad_pairs_are_refused_after_good_ones(bad, pools, imported):
    good = {"axis": (0, 1), "chunksize": (2, 1), "pool": pools["serial"]}
    with sc.SharedArray(np.zeros((3, 4))) as arr:
        sc.parallel_apply(imported.nothing, arr, **good)
        with pytest.raises(TypeError, match=next(iter(bad))):
            sc.parallel_apply(imported.nothing, arr, **(good | bad))


def draw(start, stop, out, generator):
    out[start:stop] = generator.random(stop - start)


def starts(start, stop, out):
    out[()] = start


@pytest.mark.parametrize("chunksize", [None, 7])
@pytest.mark.parametrize("name", ["serial", "threads", "caller"])
def test_a_plan_draws_over_another_range_what_a_new_one_does(name, chunksize, pools):
    pool = pools[name]
    with sc.SharedArray(np.zeros(200)) as out:
        args = sc.shared(out), sc.rng(5)
        step = sc.plan(draw, range(150), *args, chunksize=chunksize, pool=pool)
        for numbers in (range(200), range(3, 140), range(200)):
            out.array[:] = 0
            step(numbers)
            first = out.array.copy()
            out.array[:] = 0
            sc.plan(draw, numbers, *args, chunksize=chunksize, pool=pool)()
            np.testing.assert_array_equal(first, out.array)


@pytest.mark.parametrize("length", [3, 5, 6, 9])
def test_a_chain_is_cut_over_another_range_as_a_new_one_is(length):
    with sc.Pool(4, backend="threads") as pool:
        chain = [starts, starts]
        step = sc.plan(chain, range(7), sc.per_chunk(()), pool=pool)
        new = sc.plan(chain, range(length), sc.per_chunk(()), pool=pool)
        for first, then in zip(step(range(length)), new(), strict=True):
            with first, then:
                np.testing.assert_array_equal(first, then)


def test_an_array_whose_view_was_changed_in_place_is_seen_anew(any_pool):
    with sc.SharedArray(np.zeros(6)) as arr:
        sc.parallel_apply(fill_with_length, arr, chunksize=6, pool=any_pool)
        np.testing.assert_array_equal(arr.array, 6.0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's, of setting a shape
            arr.array.shape = 2, 3
        sc.parallel_apply(fill_with_length, arr, chunksize=6, pool=any_pool)
        np.testing.assert_array_equal(arr.array, 2.0)
        arr.array.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            sc.parallel_apply(fill_with_length, arr, chunksize=6, pool=any_pool)

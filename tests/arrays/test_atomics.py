"""`atomic_add` and its kin: one step each, from Python and from kernels."""

import functools
import multiprocessing
import operator
import os
import sys
import threading
import warnings

import numba as nb
import numpy as np
import pytest
from faults.trial import ATOMICS
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import run
from methods import METHODS
from numba.core.errors import TypingError

import shmcompute as sc

DTYPES = [f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8)] + ["f4", "f8"]


@nb.njit
def count(histogram, x):
    for i in range(x.size):
        sc.atomic_add(histogram, x[i], 1)


@nb.njit
def add_often(counters, x, times):
    for _ in range(times * x.size):
        sc.atomic_add(counters, 0, 1)


@nb.njit
def all_four(a, index, value):
    return (
        sc.atomic_add(a, index, value),
        sc.atomic_max(a, index, value),
        sc.atomic_min(a, index, value),
        sc.compare_exchange(a, index, value, 1),
    )


@nb.njit
def extremes(bounds, x):
    for i in range(x.size):
        sc.atomic_min(bounds, (0, 0), x[i])
        sc.atomic_max(bounds, (0, 1), x[i])


@nb.njit
def beyond(a, x):
    sc.atomic_add(a, a.size, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_each_returns_the_old_value_and_leaves_the_new(dtype):
    with sc.SharedArray(np.full((2, 3), 5), dtype=dtype) as arr:
        steps = [
            (sc.atomic_add, (3,), 8),
            (sc.atomic_max, (6,), 8),
            (sc.atomic_max, (9,), 9),
            (sc.atomic_min, (12,), 9),
            (sc.atomic_min, (2,), 2),
            (sc.compare_exchange, (3, 4), 2),
            (sc.compare_exchange, (2, 4), 4),
        ]
        before = 5
        for function, values, after in steps:
            assert function(arr, (1, -1), *values) == before
            assert arr[1, 2] == after
            before = after
        arr[1, 2] = 5
        assert (arr.array == 5).all()  # nothing beside it was touched


@pytest.mark.parametrize("dtype", ["i4", "u8", "f8"])
def test_kernels_do_what_python_does(dtype):
    one, other = np.full(4, 3, dtype), np.full(4, 3, dtype)
    told = all_four(one, 2, 7)
    functions = sc.atomic_add, sc.atomic_max, sc.atomic_min
    assert told[:3] == tuple(function(other, 2, 7) for function in functions)
    assert told[3] == sc.compare_exchange(other, 2, 7, 1)
    assert one.tolist() == other.tolist()


@pytest.mark.long
@settings(deadline=None)  # the first of each type compiles
@given(st.data())
def test_integers_are_numpys(data):
    """Sums wrap as NumPy's do; what does not fit is refused, as there."""
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES[:8])))
    known = np.iinfo(dtype)
    numbers = st.integers(known.min, known.max)
    a = np.array(data.draw(st.lists(numbers, min_size=1, max_size=3)), dtype)
    index = data.draw(st.integers(-a.size, a.size - 1))
    value = data.draw(numbers)
    for function, oracle in (
        (sc.atomic_add, np.add),
        (sc.atomic_max, np.maximum),
        (sc.atomic_min, np.minimum),
    ):
        ours, expected = a.copy(), a.copy()
        expected[index : index + 1 or None] = oracle(a[index], np.array([value], dtype))
        assert function(ours, index, value) == a[index]
        assert ours.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("old", [0.0, -0.0, 1.5, -np.inf, np.nan])
@pytest.mark.parametrize("new", [0.0, -2.5, np.inf, np.nan])
def test_floats_are_numpys(dtype, old, new):
    for function, oracle in (
        (sc.atomic_add, np.add),
        (sc.atomic_max, np.maximum),
        (sc.atomic_min, np.minimum),
    ):
        a = np.array([old], dtype)
        np.testing.assert_array_equal(function(a, 0, new), np.array(old, dtype))
        with np.errstate(invalid="ignore"):
            expected = oracle(np.array([old], dtype), np.array(new, dtype))
        np.testing.assert_array_equal(a, expected)


def test_floats_are_compared_by_bits():
    a = np.array([np.nan, -0.0])
    sc.compare_exchange(a, 0, np.nan, 1.0)
    sc.compare_exchange(a, 1, 0.0, 1.0)
    assert a[0] == 1
    assert np.signbit(a[1])


def test_views_and_scalars_of_numpy_will_do():
    with sc.SharedArray.zeros((4, 6), "i8") as arr:
        sc.atomic_add(arr[::2, ::3].T, (np.int8(1), np.uint64(1)), np.uint8(7))
        assert arr[2, 3] == 7
        sc.atomic_add(arr[1, 1, ...], (), True)
        assert arr[1, 1] == 1


class Indexed:
    def __index__(self):
        return 1


def test_whatever_is_an_index_is_one():
    a = np.zeros(2)
    sc.atomic_add(a, Indexed(), 2)
    assert a.tolist() == [0, 2]


FAULTS = [
    (np.zeros(3), 3, 1, IndexError, "index 3 is out of bounds for axis 0 with size 3"),
    (np.zeros(3), -4, 1, IndexError, "index -4 is out of bounds"),
    (np.zeros((2, 3)), (0, 3), 1, IndexError, "index 3 is out of bounds for axis 1 with size 3"),
    (np.zeros(0), 0, 1, IndexError, "size 0"),
    (np.zeros(3), 2**64 - 1, 1, IndexError, "out of bounds"),
    (np.zeros(3), 2**70, 1, IndexError, "out of bounds"),
    (np.zeros((2, 3)), 0, 1, IndexError, "one index for each of 2 dimensions, got 1"),
    (np.zeros(3), (), 1, IndexError, "one index for each of 1 dimensions, got 0"),
    (np.zeros(3), 1.0, 1, TypeError, "expected an int or a tuple of int, got 1.0"),
    (np.zeros(3), True, 1, TypeError, "got True"),
    (np.zeros(3), slice(1), 1, TypeError, "got slice"),
    (np.zeros(3), None, 1, TypeError, "got None"),
    (np.zeros(3, "c16"), 0, 1, TypeError, "complex128 have no atomic operations"),
    (np.zeros(3, "f2"), 0, 1, TypeError, "float16 have no atomic operations"),
    (np.zeros(3, "?"), 0, 1, TypeError, "bool have no atomic operations"),
    (np.zeros(3, "m8[s]"), 0, 1, TypeError, r"view\('i8'\)"),
    (np.zeros(3, ">i8" if np.little_endian else "<i8"), 0, 1, TypeError, "byte order"),
    (np.zeros(3, [("x", "i8")]), 0, 1, TypeError, r"arr\.lock\(\)"),
    (np.zeros(3, "i8"), 0, 1.5, TypeError, "a float does not go into elements of int64"),
    (np.zeros(3, "i8"), 0, np.float32(1), TypeError, "a float32 does not go"),
    (np.zeros(3), 0, "1", TypeError, "expected a number for elements of float64, got str"),
    (np.zeros(3), 0, 1j, TypeError, "got complex"),
    (np.zeros(3, "u1"), 0, 256, OverflowError, "256 does not fit into uint8"),
    (np.zeros(3, "u8"), 0, -1, OverflowError, "-1 does not fit into uint64"),
    (np.zeros(3, "i8"), 0, 2**63, OverflowError, "does not fit into int64"),
    (np.zeros(3, "i8"), 0, 2**80, OverflowError, "does not fit into int64"),
    (np.zeros(25, "u1")[1:].view("i8"), 0, 1, ValueError, "not aligned"),
    (np.broadcast_to(np.zeros(3), 3), 0, 1, ValueError, "read-only"),
    ([1, 2], 0, 1, TypeError, "expected a SharedArray or a view of one, got list"),
]


@pytest.mark.parametrize(
    "function", [sc.atomic_add, sc.atomic_max, sc.atomic_min, sc.compare_exchange]
)
@pytest.mark.parametrize(("a", "index", "value", "error", "told"), FAULTS)
def test_bad_input_is_told(function, a, index, value, error, told):
    """Each names the function and what was wrong; nothing is written."""
    before = np.array(a)
    values = (value, value) if function is sc.compare_exchange else (value,)
    with pytest.raises(error, match=f"{function.__name__}: .*{told}"):
        function(a, index, *values)
    np.testing.assert_equal(np.array(a), before)


def test_a_closed_array_is_told():
    arr = sc.SharedArray.zeros(1)
    arr.close()
    with pytest.raises(sc.errors.ClosedError):
        sc.atomic_add(arr, 0, 1)


@pytest.mark.parametrize(
    ("a", "index", "value", "told"),
    [
        (np.zeros(3, "c16"), 0, 1, "complex128 have no atomic operations"),
        (np.zeros(3), 1.0, 1, "expected an int or a tuple of int"),
        (np.zeros(3), (0, 0), 1, "one index for each of 1 dimensions, got 2"),
        (np.zeros(3, "i8"), 0, 1.5, "does not go into elements of int64"),
        (np.broadcast_to(np.zeros(3), 3), 0, 1, "read-only"),
    ],
)
def test_a_kernel_of_wrong_types_does_not_compile(a, index, value, told):
    """Numba's error holds our words."""

    @nb.njit
    def kernel(a, index, value):
        sc.atomic_add(a, index, value)

    with pytest.raises(TypingError, match=told):
        kernel(a, index, value)


def test_a_kernel_raises_what_only_shows_as_it_runs():
    @nb.njit
    def kernel(a, index, value):
        sc.atomic_add(a, index, value)

    with pytest.raises(IndexError, match="index is out of bounds") as raised:
        kernel(np.zeros((2, 3)), (0, -4), 1)
    assert raised.value.args[1:] == (-4, 1, 3)
    with pytest.raises(OverflowError, match="value out of range") as raised:
        kernel(np.zeros(3, "i1"), 0, 200)
    assert raised.value.args[1:] == (200,)
    with pytest.raises(ValueError, match="not aligned"):
        kernel(np.zeros(25, "u1")[1:].view("i8"), 0, 1)


def test_an_exception_keeps_no_array():
    """Numba forgets what it passed to a function that raises; here it passes nothing."""

    @nb.njit
    def kernel(a, x, index, value):
        for _ in range(x.size):
            sc.atomic_add(a, index, value)

    a, x = np.zeros(3, "i1"), np.zeros(3)
    before = sys.getrefcount(a)
    for index, value, error in ((3, 1, IndexError), (0, 200, OverflowError)):
        with pytest.raises(error):
            kernel(a, x, index, value)
        assert sys.getrefcount(a) == before


def test_a_kernel_may_catch_what_is_raised():
    @nb.njit
    def kernel(a):
        try:
            sc.atomic_add(a, a.size, 1)
        except Exception:
            return False
        return True

    assert not kernel(np.zeros(3))


@pytest.mark.parametrize("storage", ["shm", "array"])
def test_kernels_count_on_every_backend(any_pool, storage):
    """A histogram needs no lock: as `bincount` has it."""
    x = np.random.default_rng(1).integers(0, 5, 20_000)
    with sc.SharedArray(x) as arr, sc.SharedArray.zeros(5, "i8", storage=storage) as histogram:
        sc.parallel_apply(functools.partial(count, histogram), arr, pool=any_pool, chunksize=1000)
        assert histogram[:].tolist() == np.bincount(x).tolist()
        bounds = sc.SharedArray(np.array([[np.inf, -np.inf]]))
        with bounds, sc.SharedArray(np.sin(x)) as sines:
            sc.parallel_apply(functools.partial(extremes, bounds), sines, pool=any_pool)
            assert bounds[0].tolist() == [sines.array.min(), sines.array.max()]


def test_a_kernel_out_of_bounds_says_so_on_every_backend(any_pool):
    with sc.SharedArray.zeros(4) as arr:
        with pytest.raises(IndexError, match="index is out of bounds"):
            sc.parallel_apply(functools.partial(beyond, arr), arr[:], pool=any_pool)
        assert not arr.array.any()


def _increment(counter, times):
    for _ in range(times):
        sc.atomic_add(counter, 0, 1)


def _processes(method, target, *args, count=4):
    context = multiprocessing.get_context(method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12's, of fork beside threads
        processes = [context.Process(target=target, args=args) for _ in range(count)]
        for process in processes:
            process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
        process.close()


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_the_standard_librarys_counter(method):
    """The example of `multiprocessing.Value`: four processes, 10 000 increments each."""
    with sc.SharedArray.zeros(1, "i8") as counter:
        _processes(method, _increment, counter, 10_000)
        assert counter[0] == 40_000


def test_threads_count_exactly():
    counter = np.zeros(1, "f8")
    threads = [threading.Thread(target=_increment, args=(counter, 5000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter[0] == 20_000


def test_a_million_adds_of_each_of_eight_processes(counts):
    """None is lost."""
    with (
        counts.trial(ATOMICS) as trial,
        sc.SharedArray.zeros(1, "i8") as counter,
        sc.SharedArray.zeros(8) as arr,
    ):
        add_often(counter, arr[:0], 0)
        _processes("fork", add_often, counter, arr[:1], 1_000_000, count=8)
        trial.count += 8_000_000
        trial.never("adds lost", 8_000_000 - int(counter[0]))


def test_exactly_one_of_many_takes_a_place():
    with sc.SharedArray.zeros(1, "i8") as owner:
        _processes("fork", _claim, owner)
        assert owner[0] != 0


def _claim(owner):
    me = operator.index(multiprocessing.current_process().pid)
    assert (sc.compare_exchange(owner, 0, 0, me) == 0) == (owner[0] == me)


def test_without_a_compiler_it_says_so():
    run(
        """
        import numpy as np, pytest, shmcompute as sc
        with pytest.raises(RuntimeError, match="NUMBA_DISABLE_JIT"):
            sc.atomic_add(np.zeros(1), 0, 1)
        """,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        fresh="Numba reads its settings when it is imported",
    )

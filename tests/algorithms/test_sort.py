"""Sorting and argsort: NumPy's order, whatever is sorted, by any number of workers."""

from __future__ import annotations

import numpy as np
import pytest
from common_threads import threads
from numpy.lib.stride_tricks import as_strided

import shmcompute as sc
from shmcompute.algorithms import merging, sort

NAMES = "? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 g c8 c16 M8[s] m8[ms] S5 U4 >i4 >f8 O"
DTYPES = NAMES.split()
STRUCTURED = np.dtype([("a", "i1"), ("b", "f4")])
KINDS = [None, "heapsort", "stable"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """What is large else is so here at some hundred elements, and has many parts."""
    monkeypatch.setattr(sort, "ROW", 200)
    monkeypatch.setattr(sort, "SIZE", 200)
    monkeypatch.setattr("shmcompute.algorithms.bucket_sort.ELEMENTS", 32)
    monkeypatch.setattr(merging, "STRETCH", 61)


@pytest.fixture(params=[1, 3])
def workers(request):
    with threads(request.param):
        yield


def elements(dtype, size, seed=0):
    """With many that are equal, and all that is odd."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    numbers = rng.integers(-size // 4 - 1, size // 4 + 1, size)
    if dtype.kind in "?u":
        return (numbers % 251).astype(dtype)
    if dtype.kind == "i":
        return (numbers % 100).astype(dtype)
    if dtype.kind in "mM":
        return np.where(numbers % 7 == 0, np.iinfo("i8").min, numbers).view(dtype)
    if dtype.kind in "fc":
        return _floats(numbers, dtype, rng)
    if dtype.names:
        made = np.zeros(size, dtype)
        made["a"], made["b"] = numbers % 5, numbers
        return made
    return numbers.astype(dtype)


def _floats(numbers, dtype, rng):
    made = (numbers / 4).astype(dtype)
    made[rng.random(made.size) < 0.1] = np.nan
    made[rng.random(made.size) < 0.1] = -0.0
    made[rng.random(made.size) < 0.02] = np.inf
    if dtype.kind == "c":
        made.imag = np.where(rng.random(made.size) < 0.1, np.nan, numbers % 3)
    return made


def same(found, expected):
    if expected.dtype == object or expected.dtype.char in "gG":  # addresses, bytes to spare
        return np.array_equal(found, expected, equal_nan=expected.dtype != object)
    return found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


@pytest.mark.long
@pytest.mark.parametrize("dtype", [*DTYPES, STRUCTURED], ids=str)
def test_it_is_numpys_order_to_the_bit(dtype, workers):
    for size in (0, 1, 199, 200, 1500):
        for kind in KINDS:
            data = elements(dtype, size, size)
            given = data.copy()
            sc.parallel_sort(given, kind=kind)
            assert same(given, np.sort(data, kind=kind)), (size, kind)


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2", "c16"])
def test_floats_without_oddities_are_sorted_alike(dtype, workers):
    data = np.random.default_rng(1).normal(size=3000).astype(dtype)
    given = data.copy()
    sc.parallel_sort(given)
    assert same(given, np.sort(data))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_stable_sort_keeps_each_zero_and_nan(dtype, workers):
    rng = np.random.default_rng(3)
    data = rng.choice(np.array([0.0, -0.0, np.nan, -np.nan, 1], dtype), 1000)
    data.view(f"u{data.itemsize}")[np.isnan(data)] += rng.integers(0, 9, np.isnan(data).sum(), "u4")
    given = data.copy()
    sc.parallel_sort(given, kind="stable")
    assert same(given, np.sort(data, kind="stable"))


@pytest.mark.parametrize("dtype", [*DTYPES, STRUCTURED], ids=str)
def test_argsort_sorts_and_is_stable_where_asked(dtype, workers):
    for size in (0, 1, 199, 200, 2500):
        data = elements(dtype, size, size)
        stable = sc.parallel_argsort(data, kind="stable")
        assert same(stable, np.argsort(data, kind="stable"))
        indices = sc.parallel_argsort(data)
        assert np.array_equal(np.sort(indices), np.arange(size))
        if np.dtype(dtype).kind not in "fcO":
            assert same(
                data[indices], np.sort(data, kind="stable") if data.dtype.names else np.sort(data)
            )


def test_any_number_of_workers_gives_the_same_indices():
    data = elements("i4", 3000)
    found = set()
    for count in range(1, 8):
        with threads(count):
            found.add(sc.parallel_argsort(data).tobytes())
    assert len(found) == 1


@pytest.mark.parametrize("shape", [(2, 700), (700, 2), (40, 50), (3, 0, 4), (7, 5, 60), (1, 900)])
@pytest.mark.parametrize("layout", ["C", "F", "sliced", "reversed"])
def test_along_any_axis_of_any_strides(shape, layout):
    data = elements("f8", int(np.prod(shape))).reshape(shape)
    for axis in range(-len(shape), len(shape)):
        given = {
            "C": lambda: data.copy("C"),
            "F": lambda: data.copy("F"),
            "sliced": lambda: np.repeat(data, 2, axis=-1)[..., ::2],
            "reversed": lambda: np.flip(np.flip(data).copy()),
        }[layout]()
        expected = np.sort(given, axis=axis)
        indices = sc.parallel_argsort(given, axis=axis, kind="stable")
        assert same(indices, np.argsort(given, axis=axis, kind="stable"))
        assert same(sort.sort(given, axis=axis), expected)
        sc.parallel_sort(given, axis=axis)
        assert same(given, expected)


def test_the_fields_named_first_are_compared_first():
    data = elements(STRUCTURED, 500)
    given = data.copy()
    sc.parallel_sort(given, order=["b", "a"])
    assert same(given, np.sort(data, order=["b", "a"]))
    assert same(sc.parallel_argsort(data, order="b"), np.argsort(data, order="b"))


def test_a_shared_array_is_sorted_where_it_is():
    with sc.SharedArray(elements("f8", 1000)) as arr:
        expected = np.sort(arr.array)
        sc.parallel_sort(arr)
        assert same(arr.array, expected)
        sc.parallel_sort(arr.array[::-2])
        assert same(arr.array[::-2], expected[::-2][::-1])


def test_numpys_own_functions_take_what_numpys_take():
    data = elements("i4", 900).reshape(30, 30)
    for keywords in ({}, {"axis": None}, {"axis": 0}, {"stable": True}, {"kind": "heapsort"}):
        assert same(sort.sort(data, **keywords), np.sort(data, **keywords))
    keywords = {"stable": True, "axis": None}
    assert same(sort.argsort(data, **keywords), np.argsort(data, **keywords))
    assert sort.sort([3, 1, 2]).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="kind"):
        sort.sort(data, kind="stable", stable=True)


def test_where_memory_is_short_numpy_sorts_in_place(monkeypatch):
    monkeypatch.setattr(sort, "fits", lambda nbytes: False)
    monkeypatch.setattr(sort, "merge_sort", None)
    data = elements("i8", 1000)
    given = data.copy()
    sc.parallel_sort(given)
    assert same(given, np.sort(data))
    assert same(sc.parallel_argsort(data, kind="stable"), np.argsort(data, kind="stable"))


@pytest.mark.parametrize("kind", ["bogus", 3, ["quicksort"], b"\xff"])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises((TypeError, ValueError), match="^kind: expected None, 'quicksort'"):
        sc.parallel_sort(np.zeros(3), kind=kind)
    with pytest.raises((TypeError, ValueError), match="^kind"):
        sc.parallel_argsort(np.zeros(3), kind=kind)


def test_what_cannot_be_sorted_in_place_is_refused():
    data = np.zeros(10)
    data.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        sc.parallel_sort(data)
    for strides in ((8, 8), (0, 8), (12, 4), (32, 16)):
        view = as_strided(np.zeros(30, "f8"), (4, 3), strides)
        with pytest.raises(ValueError, match="share memory"):
            sc.parallel_sort(view)
    given = as_strided(np.arange(30.0)[::-1].copy(), (3, 2), (16, 24))  # odd, but each its own
    expected = np.sort(given)
    sc.parallel_sort(given)
    assert same(given, expected)


@pytest.mark.parametrize("bad", [[3, 1], 5, None, "abc", np.float64(3)])
def test_what_is_no_array_is_refused(bad):
    with pytest.raises(TypeError, match="expected a SharedArray or an ndarray"):
        sc.parallel_sort(bad)


def test_wrong_axes_are_refused():
    for axis in (2, -3):
        with pytest.raises(np.exceptions.AxisError):
            sc.parallel_sort(np.zeros((3, 3)), axis=axis)
    with pytest.raises(TypeError, match="axis: expected an int, got None"):
        sc.parallel_sort(np.zeros((3, 3)), axis=None)
    with pytest.raises(np.exceptions.AxisError):
        sc.parallel_sort(np.array(3))


def test_masks_and_the_closed_are_refused():
    with pytest.raises(TypeError, match="mask"):
        sc.parallel_sort(np.ma.zeros(3))
    arr = sc.SharedArray(np.zeros(3))
    arr.close()
    with pytest.raises(sc.errors.ClosedError):
        sc.parallel_sort(arr)
    with pytest.raises(ValueError, match="unknown field|fields"):
        sc.parallel_sort(np.zeros(3), order="a")


def fails_at(number, run_parts):
    calls = iter(range(10))

    def run(function, count):
        if next(calls) == number:
            raise KeyboardInterrupt
        run_parts(function, count)

    return run


@pytest.mark.parametrize("data", [elements("i4", 2000), elements("U4", 2000)])
def test_an_interrupt_loses_no_element(data, monkeypatch):
    """Whichever part raises, the array is as it was, or sorted."""
    parts = sort.merge_sort.__globals__["run_parts"]
    for failing in range(4):
        run = fails_at(failing, parts)
        monkeypatch.setattr("shmcompute.algorithms.merge_sort.run_parts", run)
        monkeypatch.setattr("shmcompute.algorithms.bucket_sort.run_parts", run)
        given = data.copy()
        try:
            sc.parallel_sort(given)
        except KeyboardInterrupt:
            assert same(given, data)
        else:
            assert same(given, np.sort(data))


def test_within_a_task_it_is_sorted_there():
    data = elements("f8", 2000)
    with sc.Pool(2, backend="threads") as pool:
        given = data.copy()
        pool.submit(sc.parallel_sort, given).result()
    assert same(given, np.sort(data))

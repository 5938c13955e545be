"""NumPy's functions in parts come to what they come to in one piece: NumPy is the oracle."""

from __future__ import annotations

import operator
import warnings
from functools import partial

import numpy as np
import pytest

import shmcompute as sc
from shmcompute.algorithms import (
    arg_reductions,
    block_squares,
    block_sums,
    cumulative,
    elementwise,
    moments,
    numpy_reductions,
    parts,
    run_parts,
    slabs,
)
from shmcompute.algorithms.numpy_functions import FORMS
from shmcompute.arrays import parallel_forms

EXACT = [np.min, np.max, np.ptp, np.any, np.all, np.argmin, np.argmax, np.count_nonzero]
EXACT += [np.nanmin, np.nanmax, np.maximum.reduce, np.minimum.reduce]
SUMS = [np.sum, np.mean, np.var, np.std, np.nansum, np.nanmean, np.prod, np.cumsum, np.cumprod]
SUMS += [np.add.reduce, np.multiply.reduce, np.add.accumulate, np.multiply.accumulate]
DTYPES = ["?", "i1", "u2", "i4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", ">f8", ">i4"]
DTYPES += ["m8[s]", "M8[D]", "g"]
SHAPES = [(500,), (3, 200), (200, 3), (17, 5, 9), (1, 300), (1,), (0,), (4, 0), ()]
KEYWORDS = [{}, {"keepdims": True}, {"dtype": "f8"}, {"dtype": "i8"}, {"initial": 3}, {"ddof": 1}]
KEYWORDS += [
    {"dtype": ">f8"},
    {"where": True},
    {"where": "some"},
    {"where": "some", "initial": 1},
    {"keepdims": 0},
]
# By the character of a float that is summed: what NumPy's own error may come to here.
NEAR = {"e": 1e-2, "f": 1e-4, "F": 1e-4}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Small arrays are large, and cut in many parts."""
    monkeypatch.setattr(parallel_forms, "LARGE", 1)
    monkeypatch.setattr(slabs, "PART", 64)
    monkeypatch.setattr(cumulative, "BLOCK", 8)
    monkeypatch.setattr(numpy_reductions, "HEAD", 1)


@pytest.fixture
def counted(monkeypatch):
    """How often parts were run, by the modules that run them."""
    runs = []

    def run(function, count):
        runs.append(count)
        run_parts(function, count)

    for module in ("reductions", "cumulative", "moments", "elementwise", "arg_reductions"):
        monkeypatch.setattr(f"shmcompute.algorithms.{module}.run_parts", run)
    return runs


def _values(rng, shape, dtype):
    kind = np.dtype(dtype)
    numbers = rng.integers(0 if kind.kind in "?u" else -9, 10, shape)
    if kind.kind in "fc":
        # No -0.0 beside 0.0: which of both is the least NumPy leaves to how it goes through them.
        numbers = numbers * rng.normal(size=shape) + 0.0
    return np.asarray(numbers.astype("i8" if kind.kind in "mM" else kind).astype(kind))


def _outcome(call):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return call()
        except Exception as error:
            return type(error)


def _same(got, want, near=0):
    if isinstance(want, type):
        return got is want
    if type(got) is not type(want) or got.dtype != want.dtype or got.shape != want.shape:
        return False
    if near and want.dtype.kind in "fc":
        return np.allclose(got, want, near, near, equal_nan=True)
    if want.dtype.char == "g":  # of which some bytes are padding
        return np.array_equal(got, want)
    return got.tobytes() == want.tobytes()


def _near(function, dtype):
    if function in EXACT:
        return 0
    return NEAR.get(np.dtype(dtype).char, 1e-9)


def _calls(rng, x, functions):
    axes = [None, *range(-x.ndim - 1, x.ndim + 1), (0,), (0, 1), (), True]
    for function in functions:
        for _ in range(3):
            keywords = dict(KEYWORDS[rng.integers(len(KEYWORDS))])
            if keywords.get("where") == "some":
                keywords["where"] = rng.integers(0, 2, x.shape) == 1
            if rng.integers(3):
                keywords["axis"] = axes[rng.integers(len(axes))]
            yield function, keywords


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions_come_to_the_same(dtype):
    rng = np.random.default_rng(DTYPES.index(dtype))
    for shape in SHAPES:
        for order in "CF":
            x = np.asarray(_values(rng, shape, dtype), order=order)
            with sc.SharedArray(x) as arr:
                for function, keywords in _calls(rng, x, EXACT + SUMS):
                    want = _outcome(partial(function, x, **keywords))
                    got = _outcome(partial(function, arr, **keywords))
                    near = _near(function, dtype)
                    assert _same(got, want, near), (function, shape, order, keywords, got, want)


@pytest.mark.parametrize("function", EXACT + SUMS)
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_out_takes_what_would_be_returned(function, axis):
    x = _values(np.random.default_rng(1), (20, 30), "f8")
    if function is np.count_nonzero:  # has no `out`
        return
    if axis is None and function in (np.add.accumulate, np.multiply.accumulate):
        return
    with sc.SharedArray(x) as arr:
        want = np.asarray(function(x, axis=axis))
        for kind in (want.dtype, np.dtype("f4"), np.dtype("i8")):
            plain, shared = np.zeros_like(want, kind), sc.SharedArray(np.zeros_like(want, kind))
            with shared:
                right = _outcome(lambda p=plain: function(x, axis=axis, out=p))
                got = _outcome(lambda s=shared: function(arr, axis=axis, out=s))
                assert got is shared or got is right
                assert _same(shared.array, plain, 1e-9)


@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, -0.0])
def test_rules_of_odd_numbers_are_numpys(dtype, odd):
    rng = np.random.default_rng(2)
    for places in ([0], [499], [250, 251], [7, 300, 8]):
        x = _values(rng, (500,), dtype)
        x[places] = odd
        with sc.SharedArray(x) as arr:
            for function in EXACT + SUMS:
                want, got = (_outcome(partial(function, a)) for a in (x, arr))
                assert _same(got, want, 0 if function in EXACT else 1e-3), (function, places)


def test_all_nan_and_empty_slices_warn_as_numpy_does():
    x = np.full((20, 30), np.nan)
    x[1:] = 1
    x[:, 3] = np.nan
    with sc.SharedArray(x) as arr:
        for function in (np.nanmin, np.nanmean, np.nanmax):
            with pytest.warns(RuntimeWarning) as found:
                function(arr, axis=0)
            with pytest.warns(RuntimeWarning) as wanted:
                function(x, axis=0)
            assert str(found[0].message) == str(wanted[0].message)
        with np.errstate(all="ignore"), pytest.warns(RuntimeWarning, match="Mean of empty slice"):
            np.mean(arr, where=False)


def test_overflow_is_numpys():
    """A sum that NumPy leaves infinite does not come back from there in a later block."""
    x = np.ones(500)
    x[3:5] = 1e308
    x[300:302] = -1e308
    with sc.SharedArray(x) as arr, np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(np.cumsum(arr), np.cumsum(x))
        np.testing.assert_array_equal(np.cumprod(arr), np.cumprod(x))
    with sc.SharedArray(x) as arr, np.errstate(over="raise"), pytest.raises(FloatingPointError):
        np.cumsum(arr, out=arr)
    y = np.full(500, 1e200)
    y[0] = 0
    with sc.SharedArray(y) as arr:
        assert np.prod(arr) == 0


@pytest.mark.parametrize("dtype", ["?", "i4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("code", [False, True])
def test_cumulative_sums_in_place_and_elsewhere(dtype, code, monkeypatch):
    """By machine code and by NumPy: the same bits."""
    monkeypatch.setattr(block_sums, "PAYS", 1 if code else 1 << 60)
    rng = np.random.default_rng(3)
    for size in (500, 501, 512, 1031):
        x = _values(rng, (size,), dtype)
        want = np.cumsum(x)
        near = 1e-4 if dtype == "f4" else 1e-9
        with sc.SharedArray(x) as arr, sc.SharedArray(want) as out:
            for result in (arr.cumsum(), np.add.accumulate(arr), arr.cumsum(out=out), out):
                assert _same(np.asarray(result), want, near)
            if want.dtype == x.dtype:
                kept = arr.cumsum()
                assert np.cumsum(arr, out=arr) is arr
                assert _same(arr.array, kept)


def test_machine_code_and_numpy_sum_blocks_to_the_same_bits(monkeypatch):
    x = np.random.default_rng(4).normal(size=1000)
    with sc.SharedArray(x) as arr:
        monkeypatch.setattr(block_sums, "ready", lambda *arrays: False)
        by_numpy = arr.cumsum()
        monkeypatch.undo()
        monkeypatch.setattr(parallel_forms, "LARGE", 1)
        monkeypatch.setattr(slabs, "PART", 64)
        monkeypatch.setattr(cumulative, "BLOCK", 8)
        monkeypatch.setattr(block_sums, "PAYS", 1)
        assert arr.cumsum().tobytes() == by_numpy.tobytes()


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("size", [500, 2047, 2048, 2049, 20_001])
def test_variance_by_machine_code(dtype, size, monkeypatch):
    """As near to the true one as NumPy's, far from zero; a read-only array's is the same."""
    monkeypatch.setattr(block_squares, "PAYS", 1)
    x = (np.random.default_rng(size).normal(size=size) + 1000).astype(dtype)
    true = x.astype(np.longdouble).var()
    with sc.SharedArray(x) as arr:
        found = np.var(arr)
        assert found.dtype == x.dtype
        rounded = 1000 * np.finfo(dtype).eps  # of a value, relative to a deviation
        assert abs(found - true) <= abs(np.var(x) - true) + rounded * true
        np.testing.assert_allclose(np.std(arr, ddof=1), x.astype("f8").std(ddof=1), 1e-4)
        x.flags.writeable = False
        assert FORMS[np.var](x) == found
        arr[3] = np.nan
        assert np.isnan(np.var(arr))


def test_cumulative_sums_of_what_is_not_negative_never_fall():
    x = np.random.default_rng(5).random(4000) * np.geomspace(1, 1e-18, 4000)
    with sc.SharedArray(x) as arr:
        assert (np.diff(arr.cumsum()) >= 0).all()


def test_cumulative_sums_of_negative_zeros_are_negative_zeros():
    with sc.SharedArray(np.full(100, -0.0)) as arr:
        assert np.signbit(arr.cumsum()).all()


def test_overlapping_out_is_numpys():
    x = np.arange(500.0)
    for start in (0, 1):
        with sc.SharedArray(x) as arr:
            plain = x.copy()
            want = np.cumsum(plain[:499], out=plain[start : start + 499])
            view = arr.array[start : start + 499]
            np.testing.assert_array_equal(np.cumsum(arr[:499], out=view), want)
            np.testing.assert_array_equal(np.clip(arr, 3, 9, out=arr), np.clip(arr.array, 3, 9))


@pytest.mark.parametrize("function", [np.sum, np.mean, np.std, np.cumsum, np.nanmean, np.var])
def test_the_bits_are_the_same_for_any_number_of_workers(function, monkeypatch):
    x = np.random.default_rng(6).normal(size=(301, 71)).astype("f4")
    with sc.SharedArray(x) as arr:
        for keywords in ({}, {"axis": 0}, {"axis": 1}):
            found = set()
            for workers in (1, 2, 3, 7):
                with sc.Pool(workers, backend="threads") as pool:
                    monkeypatch.setattr(parts, "default_pool", lambda name, pool=pool: pool)
                    found.add(np.asarray(function(arr, **keywords)).tobytes())
            assert len(found) == 1


def _sum(arr):
    return arr.sum(), arr.std()


@pytest.mark.long
def test_the_bits_are_the_same_in_a_worker(pools):
    """Of what is large without a test's help."""
    x = np.random.default_rng(7).normal(size=1 << 18)
    with pytest.MonkeyPatch.context() as patch, sc.SharedArray(x) as arr:
        patch.setattr(parallel_forms, "LARGE", 1 << 20)
        patch.setattr(slabs, "PART", 1 << 20)
        assert pools["forkserver"].submit(_sum, arr).result(60) == _sum(arr)


OWN = [arg_reductions, cumulative, elementwise, moments, numpy_reductions]


@pytest.mark.parametrize("function", [name for module in OWN for name in module.FUNCTIONS])
def test_each_form_is_used(function, counted):
    """It runs in parts what it is for."""
    with sc.SharedArray(np.arange(600).reshape(30, 20) % 7 + (function is np.all)) as arr:
        _use(function, arr)
        assert counted, function


def _use(function, arr):
    floats = sc.SharedArray(arr.array + 0.5)
    with floats:
        if function is np.copyto:
            return function(floats, arr)
        if function is np.ndarray.fill:
            return arr.fill(3)
        if function is np.ndarray.astype:
            return arr.astype("f4")
        if function is np.ndarray.copy:
            return arr.copy()
        if function is np.clip:
            return np.clip(arr, 2, 5)
        if function in (np.nanmin, np.nanmax, np.nanmean, np.nansum, np.round, np.around):
            return function(floats)
        return function(arr)


@pytest.mark.parametrize("dtype", ["?", "i4", "f2", "f4", "f8", "c16", ">f8", "M8[s]", "S3", "V4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_elementwise_forms_do_the_same(dtype, order):
    x = np.asarray(np.arange(600).reshape(30, 20) % 90)
    x = np.asarray(x.astype("S3" if dtype == "V4" else dtype).astype(dtype), order=order)
    calls = [
        lambda a: np.clip(a, 2, 5),
        lambda a: a.clip(2, 5),
        lambda a: a.clip(min=3.5),
        lambda a: np.clip(a, max=4),
        lambda a: np.clip(a, a, a),
        lambda a: np.clip(a, None, None),
        lambda a: a.clip(5, min=3),
        lambda a: np.round(a, 1),
        lambda a: a.round(-1),
        lambda a: np.around(a),
        lambda a: a.copy(),
        lambda a: a.copy("F"),
        lambda a: np.copy(a),
        lambda a: np.copy(a, order="C"),
        lambda a: a.astype("f4"),
        lambda a: a.astype("i8", "F"),
        lambda a: a.astype("c8", casting="safe"),
        lambda a: a.astype("f8", copy=False),
        lambda a: a.astype("M8[D]"),
        lambda a: a.astype("S"),
    ]
    with sc.SharedArray(x) as arr:
        for number, call in enumerate(calls):
            want, got = (_outcome(lambda a=a, c=call: c(a)) for a in (x, arr))
            assert _same(got, want), number
            if isinstance(want, np.ndarray):
                assert got.strides == want.strides
    for value in (3, 2.5, "x", np.datetime64(9, "s"), np.array(4), np.array([4]), [1, 2]):
        plain = x.copy()
        with sc.SharedArray(x) as arr:
            want, got = (
                _outcome(partial(operator.methodcaller("fill", value), a)) for a in (plain, arr)
            )
            assert got is want
            assert _same(arr.array, plain)


def test_copyto_does_the_same():
    x = np.arange(600.0).reshape(30, 20)
    for source in (x, x.astype("i4"), x.astype("c16"), x[0], 3.5, np.asfortranarray(x)):
        for keywords in ({}, {"casting": "unsafe"}, {"casting": "no"}, {"where": x > 9}):
            plain = np.zeros_like(x)
            with sc.SharedArray.zeros(x.shape) as arr:
                want = _outcome(lambda s=source, k=keywords, p=plain: np.copyto(p, s, **k))
                got = _outcome(lambda s=source, k=keywords, a=arr: np.copyto(a, s, **k))
                assert got is want
                assert _same(arr.array, plain)


def test_what_may_not_be_written_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(600.0))
    with sc.SharedArray.open(tmp_path / "x.npy", "r") as arr:
        for call in (
            lambda a: a.fill(1),
            lambda a: np.copyto(a, a.copy()),
            lambda a: np.cumsum(a, out=a),
            lambda a: np.clip(a, 0, 1, out=a),
            lambda a: np.round(a, out=a),
        ):
            assert _outcome(lambda c=call: c(arr)) is ValueError
        np.testing.assert_array_equal(arr.cumsum(), np.cumsum(np.arange(600.0)))
        np.testing.assert_array_equal(arr.array, np.arange(600.0))


def test_a_first_true_element_ends_the_search(counted):
    with sc.SharedArray(np.zeros(1000, bool)) as arr:
        arr[0] = True
        assert arr.any()
        assert not counted
        assert not arr.all()


def test_errors_of_arithmetic_are_raised_in_the_caller():
    with sc.SharedArray(np.full(500, 1e308)) as arr:
        with np.errstate(over="raise"), pytest.raises(FloatingPointError):
            arr.sum()
        with pytest.warns(RuntimeWarning, match="overflow"):
            arr.sum()


def test_small_arrays_are_numpys(counted, monkeypatch):
    monkeypatch.setattr(parallel_forms, "LARGE", 1 << 20)
    with sc.SharedArray(np.arange(500.0)) as arr:
        for function in EXACT + SUMS:
            function(arr)
    assert not counted


@pytest.mark.long
def test_what_is_sorted_counted_and_searched_is_had_by_method_and_function():
    """The forms of these have tests of their own; here, that they are found."""
    x = np.random.default_rng(8).permutation(1 << 18)
    with sc.SharedArray(x) as arr:
        for function in (np.sort, np.argsort, np.median, np.unique, np.bincount, np.nonzero):
            assert function in FORMS
            np.testing.assert_array_equal(function(arr), function(x))
        np.testing.assert_array_equal(arr.argsort(), x.argsort())
        np.testing.assert_array_equal(np.histogram(arr, 9)[0], np.histogram(x, 9)[0])
        assert arr.sort() is None
        np.testing.assert_array_equal(arr.array, np.arange(1 << 18))
        np.testing.assert_array_equal(arr.searchsorted(arr), arr.array)
        for wrong in ({"axis": 3}, {"kind": "no"}, {"kind": "stable", "stable": True}):
            assert _outcome(partial(arr.sort, **wrong)) is _outcome(partial(x.sort, **wrong))

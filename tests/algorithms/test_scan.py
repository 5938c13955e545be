"""`parallel_scan`: NumPy's accumulate, in parts, and the same bits for any number of workers."""

from __future__ import annotations

import itertools

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.algorithms import scan


@nb.njit
def plus(one, other):
    return one + other


@nb.njit
def compose(one, other):
    """Associative, not commutative: keeps what comes last of two, unless it is 0."""
    return other if other != 0 else one


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """So that small arrays have many."""
    monkeypatch.setattr(scan, "SMALLEST", 1 << 10)
    monkeypatch.setattr(scan, "BLOCK", 1 << 9)
    monkeypatch.setattr(scan, "RUN", 64)


SHAPES = [(5000,), (1,), (70, 31), (4, 900), (900, 4), (20, 17, 16), (0, 3), (3, 0), (0,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_what_accumulate_is(shape):
    """Any axis, order, ufunc and dtype of `out`; floats here are whole, so that sums are exact."""
    rng = np.random.default_rng(0)
    axes, dtypes = range(-1, len(shape) - 1), ["i8", "f8", "i1", "?", "f4"]
    for axis, order, dtype, made in itertools.product(axes, "CF", dtypes, ["i8", "f8", "i2"]):
        source = np.asarray(rng.integers(0, 100, shape).astype(dtype), order=order)
        for ufunc in (np.add, np.maximum, np.bitwise_or, np.logical_and, np.multiply):
            if ufunc is np.bitwise_or and "f" in dtype + made:
                continue
            with np.errstate(all="ignore"):
                expected = np.empty_like(source, dtype=made)
                ufunc.accumulate(source, axis, out=expected)
                out = np.empty_like(source, dtype=made)
                assert sc.parallel_scan(ufunc, source, out, axis=axis) is out
                if ufunc is np.multiply:  # of floats: overflows at other places
                    continue
                np.testing.assert_array_equal(out, expected)
                inside = source.copy(order="K")
                ufunc.accumulate(source, axis, out=(expected := np.empty_like(source)))
                assert sc.parallel_scan(ufunc, inside, axis=axis) is inside
                np.testing.assert_array_equal(inside, expected)


@pytest.mark.long
@pytest.mark.parametrize("op", [np.add, plus, np.maximum, compose])
def test_exclusive_and_initial(any_pool, op):
    source = np.random.default_rng(0).integers(0, 5, 3000)
    join = {np.add: np.add, plus: np.add, np.maximum: max}.get(op, compose.py_func)
    for initial, exclusive in itertools.product((None, 7), (False, True)):
        with sc.SharedArray(source) as arr, sc.SharedArray.zeros(3000) as out:
            options = {"exclusive": exclusive, "initial": initial, "pool": any_pool}
            if exclusive and initial is None and op is not np.add:
                with pytest.raises(ValueError, match="no identity.*initial="):
                    sc.parallel_scan(op, arr, **options)
                continue
            first = 0 if initial is None else initial
            expected = list(itertools.accumulate(source.tolist(), join, initial=first))
            expected = expected[:-1] if exclusive else expected[1:]
            assert sc.parallel_scan(op, arr, out, **options) is out
            np.testing.assert_array_equal(out, expected)
            assert sc.parallel_scan(op, arr, **options) is arr
            np.testing.assert_array_equal(arr, expected)


@pytest.mark.long
def test_an_initial_step_of_many_lanes(any_pool):
    for shape, axis in (((400, 8), 0), ((40, 100), 1), ((40, 100), 0)):
        lanes = np.arange(float(np.prod(shape) // shape[axis]))
        for exclusive in (False, True):
            with sc.SharedArray(np.ones(shape)) as arr:
                found = sc.parallel_scan(
                    np.add, arr, axis=axis, initial=lanes, exclusive=exclusive, pool=any_pool
                ).array
                steps = np.arange(float(shape[axis])) + (not exclusive)
                expected = lanes[:, None] + steps if axis else steps[:, None] + lanes
                np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module")
def known():
    """The bits of some scans, on one thread."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("SMALLEST", 1 << 10), ("BLOCK", 1 << 9), ("RUN", 64)):
            patch.setattr(scan, name, value)
        return list(_bits(backend="serial"))


def _bits(storage=None, **how):
    source = np.random.default_rng(1).normal(size=6000)
    for shape, op, options in (
        ((6000,), np.add, {}),
        ((6000,), plus, {"exclusive": True, "initial": 0.5}),
        ((1500, 4), np.add, {"initial": 0.1}),
        ((60, 100), np.add, {"axis": 1}),
        ((60, 100), np.logaddexp, {"axis": 0, "initial": 0.1}),
    ):
        keywords = {} if storage is None else {key: storage[key] for key in storage}
        with sc.SharedArray(source.reshape(shape), **keywords) as arr:
            yield sc.parallel_scan(op, arr, **options, **how).array.tobytes()


@pytest.mark.parametrize("workers", range(1, 8))
def test_workers_change_no_bit(workers, known):
    with sc.Pool(workers, backend="threads") as pool:
        assert list(_bits(pool=pool)) == known


@pytest.mark.long
def test_nor_does_the_pool_or_the_storage(any_pool, any_storage, known):
    assert list(_bits(any_storage, pool=any_pool)) == known


def test_floats_are_as_near_as_numpys():
    source = np.random.default_rng(2).normal(size=100_000)
    exact = np.cumsum(source.astype(np.longdouble))
    with sc.SharedArray(source) as arr:
        sc.parallel_scan(np.add, arr)
        ours, numpys = abs(arr.array - exact).max(), abs(np.cumsum(source) - exact).max()
    assert ours <= 2 * numpys


def test_views_and_out_that_overlaps():
    for x, out in ((np.s_[:-1], np.s_[1:]), (np.s_[1:], np.s_[:-1]), (np.s_[::-1], np.s_[:])):
        source = np.random.default_rng(3).integers(0, 9, 4001)
        expected = source.copy()
        expected[out] = np.cumsum(source[x])
        sc.parallel_scan(np.add, source[x], source[out])
        np.testing.assert_array_equal(source, expected)


def test_small_integers_of_jitted_functions_wrap_as_numpys():
    source = np.full(3000, 100, np.int8)
    expected = np.add.accumulate(source, dtype=np.int8)
    np.testing.assert_array_equal(sc.parallel_scan(plus, source), expected)


def test_datetimes():
    source = np.arange(3000).astype("m8[s]")
    np.testing.assert_array_equal(sc.parallel_scan(np.add, source.copy()), np.cumsum(source))
    days = np.random.default_rng(0).integers(0, 9**6, 3000).astype("M8[D]")
    expected = np.maximum.accumulate(days)
    np.testing.assert_array_equal(sc.parallel_scan(np.maximum, days), expected)


def test_not_a_number_stays_one():
    source = np.arange(3000.0)
    source[1700] = np.nan
    assert np.isnan(sc.parallel_scan(np.maximum, source)).sum() == 1300


@pytest.mark.parametrize(
    ("op", "error", "message"),
    [
        (np.subtract, ValueError, r"subtract is not associative.*accumulate"),
        (np.divide, ValueError, "not associative"),
        (np.negative, TypeError, "op: expected a ufunc of two inputs"),
        (np.divmod, TypeError, "op: expected a ufunc of two inputs"),
        (sum, TypeError, "op: expected a ufunc"),
        (None, TypeError, "op: expected a ufunc"),
        (nb.njit(lambda a, b: (a, b)), TypeError, "op: .*returns .* for two float64"),
        (nb.njit(lambda a, b: a > b), TypeError, "op: .*returns bool for two float64"),
        (nb.njit(lambda a: a), TypeError, "takes 1 positional argument|arguments"),
        (np.bitwise_or, TypeError, "bitwise_or"),
    ],
)
def test_an_op_that_will_not_do_is_refused(op, error, message):
    source = np.arange(3000.0)
    with pytest.raises(error, match=message):
        sc.parallel_scan(op, source)
    np.testing.assert_array_equal(source, np.arange(3000.0))


def test_other_bad_input_is_refused():
    x = np.arange(6.0).reshape(2, 3)
    for wrong in ([1, 2], 3, None):
        with pytest.raises(TypeError, match="x: expected a SharedArray or an ndarray"):
            sc.parallel_scan(np.add, wrong)
    with pytest.raises(ValueError, match=r"out: expected the shape of x, \(2, 3\)"):
        sc.parallel_scan(np.add, x, np.zeros(6))
    for axis in (2, -3):
        with pytest.raises(np.exceptions.AxisError):
            sc.parallel_scan(np.add, x, axis=axis)
    with pytest.raises(np.exceptions.AxisError):
        sc.parallel_scan(np.add, np.array(1.0))
    for axis in (1.0, True, "0", None):
        with pytest.raises(TypeError, match="axis: expected a whole number"):
            sc.parallel_scan(np.add, x, axis=axis)
    with pytest.raises(TypeError, match="initial: expected int64"):
        sc.parallel_scan(np.add, np.arange(3), initial=0.5)
    with pytest.raises(ValueError, match="broadcast"):
        sc.parallel_scan(np.add, x, initial=np.zeros(2))
    x.flags.writeable = False
    with pytest.raises(ValueError, match=r"read-only; pass out="):
        sc.parallel_scan(np.add, x)
    with sc.SharedArray(np.arange(3.0)) as arr:
        pass
    with pytest.raises(sc.errors.ClosedError):
        sc.parallel_scan(np.add, arr)


def test_a_plain_array_is_not_for_processes():
    with pytest.raises(TypeError, match="wrap it"):
        sc.parallel_scan(np.add, np.arange(3000.0), backend="processes")


def test_within_a_kernel_it_is_serial(any_pool):
    def kernel(x):
        sc.parallel_scan(np.add, x)

    with sc.SharedArray(np.ones((2, 3000))) as arr:
        sc.parallel_apply(lambda rows: kernel(rows[0]), arr, chunksize=1, pool=any_pool)
        np.testing.assert_array_equal(arr.array[1], np.arange(1.0, 3001))

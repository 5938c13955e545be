"""`parallel_reduce`: one result, the same bits wherever and by however many chunks were run."""

from __future__ import annotations

import functools
import os
import threading

import numba as nb
import numpy as np
import pytest

import shmcompute as sc


@nb.njit
def total(x):
    result = 0.0
    for i in range(x.size):
        result += x[i]
    return result


@nb.njit
def moments(x):
    low, place, total = np.inf, 0, 0.0
    for i in range(x.size):
        low = min(low, x[i])
        if x[i] > x[place]:
            place = i
        total += x[i]
    return low, place, total, x.size > 0


@nb.njit
def counts(x):
    result = np.zeros(20, np.int64)
    for value in x:
        result[int(value * 20)] += 1
    return result


@nb.njit
def scaled(x, factor, first):
    return x.sum() * factor + first


@nb.njit
def dot(x, y):
    return (x * y).sum()


@nb.njit
def lower(one, other):
    return min(one, other)


def mean_and_count(x):
    return float(np.mean(x)), len(x)


def joined(one, other):
    """Of means and counts: not a ufunc's work."""
    count = one[1] + other[1]
    return (one[0] * one[1] + other[0] * other[1]) / count, count


KERNELS = {
    "jitted": (total, np.add),
    "tuple": (moments, (np.minimum, np.maximum, np.add, np.logical_and)),
    "array": (counts, np.add),
    "NumPy": (np.max, max),
    "jitted combine": (np.min, lower),
    "Python": (mean_and_count, joined),
    "matrix": (lambda x: np.outer(x[:8], x[-8:]), np.add),
}
DATA = np.random.default_rng(0).random(20_011)


def bits(result):
    parts = result if isinstance(result, tuple) else (result,)
    return [(part.dtype, part.shape, part.tobytes()) for part in parts]


@functools.cache
def expected(name, chunksize):
    """By hand, in the same tree."""
    kernel, combine = KERNELS[name]
    cut = [DATA[i : i + chunksize] for i in range(0, len(DATA), chunksize)]
    items = [kernel(part) for part in cut]
    while len(items) > 1:
        pairs = [*zip(items[::2], items[1::2], strict=False)]
        items = [*(_both(combine, *pair) for pair in pairs), *items[2 * len(pairs) :]]
    return items[0]


def _both(combine, one, other):
    if isinstance(combine, tuple):
        return tuple(map(lambda f, *pair: f(*pair), combine, one, other))
    return combine(one, other)


@pytest.mark.long
@pytest.mark.parametrize("name", KERNELS)
def test_results_are_combined_neighbour_with_neighbour(any_pool, name):
    kernel, combine = KERNELS[name]
    with sc.SharedArray(DATA) as arr:
        for chunksize in (1000, 7000, 30_000):
            for x, schedule in ((arr, "static"), (arr, "dynamic"), (arr.array, "guided")):
                result = sc.parallel_reduce(
                    kernel,
                    x,
                    combine=combine,
                    chunksize=chunksize,
                    schedule=schedule,
                    pool=any_pool,
                )
                assert np.shape(result) == np.shape(expected(name, chunksize))
                for found, known in zip(
                    np.atleast_1d(np.array(result, object)).ravel(),
                    np.atleast_1d(np.array(expected(name, chunksize), object)).ravel(),
                    strict=True,
                ):
                    assert found == known


@pytest.fixture(scope="module")
def known():
    """The bits of each kernel's result, on one thread."""
    with sc.SharedArray(DATA) as arr:
        return {
            name: bits(sc.parallel_reduce(kernel, arr, combine=combine, backend="serial"))
            for name, (kernel, combine) in KERNELS.items()
        }


@pytest.mark.parametrize("workers", range(1, 8))
def test_workers_change_no_bit(workers, known):
    with sc.Pool(workers, backend="threads") as pool, sc.SharedArray(DATA) as arr:
        for name, (kernel, combine) in KERNELS.items():
            for _ in range(2):
                assert (
                    bits(sc.parallel_reduce(kernel, arr, combine=combine, pool=pool)) == known[name]
                )


def test_nor_does_the_pool_or_the_storage(any_pool, any_storage, known):
    with sc.SharedArray(DATA, **{key: any_storage[key] for key in any_storage}) as arr:
        for name, (kernel, combine) in KERNELS.items():
            assert (
                bits(sc.parallel_reduce(kernel, arr, combine=combine, pool=any_pool)) == known[name]
            )


@pytest.mark.parametrize("more", [{"retries": 1}, {"debug": True}, {"timeout": 60}])
def test_nor_do_options(any_pool, more, known):
    with sc.SharedArray(DATA) as arr:
        for name in ("jitted", "array", "Python"):
            kernel, combine = KERNELS[name]
            found = sc.parallel_reduce(kernel, arr, combine=combine, pool=any_pool, **more)
            assert bits(found) == known[name]


def test_numbers_may_change_from_call_to_call(any_pool):
    with sc.SharedArray(np.ones(9)) as arr:
        for chunksize in (3, None):
            for factor in (1, 2, 3):
                found = sc.parallel_reduce(
                    scaled,
                    arr,
                    factor,
                    sc.offset,
                    combine=np.add,
                    chunksize=chunksize,
                    pool=any_pool,
                )
                assert found == 9 * factor + (9 if chunksize else 0)


def test_a_partial_is_what_it_calls(any_pool):
    with sc.SharedArray(np.ones(9)) as arr:
        for kernel in (
            functools.partial(scaled, factor=2, first=0),
            functools.partial(np.sum, axis=0),
        ):
            for chunksize in (3, None):
                sc.parallel_reduce(kernel, arr, combine=np.add, chunksize=chunksize, pool=any_pool)
        reverse = functools.partial(lambda factor, x: factor * x.sum(), 3)
        assert sc.parallel_reduce(reverse, arr, combine=np.add, chunksize=2, pool=any_pool) == 27


def test_a_kernel_that_was_compiled_anew_is_called_anew(any_pool):
    factor = 2
    scope = {"factor": factor}
    exec("def kernel(x):\n    return x.sum() * factor\n", scope)
    kernel = nb.njit(scope["kernel"])
    with sc.SharedArray(np.ones(8)) as arr:
        for chunksize in (None, 2):
            for scope["factor"] in (2, 3):
                kernel.recompile()
                for _ in range(2):
                    found = sc.parallel_reduce(
                        kernel, arr, combine=np.add, chunksize=chunksize, pool=any_pool
                    )
                    assert found == 8 * scope["factor"]


@pytest.mark.long
def test_any_axis_and_several_arrays(any_pool):
    source = np.arange(24.0).reshape(2, 3, 4)
    with sc.SharedArray(source) as one, sc.SharedArray(source, order="F") as other:
        for axis in (0, 1, 2, -1):
            for chunksize in (None, 1):
                found = sc.parallel_reduce(
                    dot,
                    sc.read(one),
                    sc.read(other),
                    combine=np.add,
                    axis=axis,
                    chunksize=chunksize,
                    pool=any_pool,
                )
                assert found == (source**2).sum()


def test_a_kernel_may_write_its_part(any_pool):
    @nb.njit
    def step(x):
        x += 1
        return x.max()

    with sc.SharedArray(np.arange(10.0)) as arr:
        for chunksize in (None, 3):
            sc.parallel_reduce(step, arr, combine=np.maximum, chunksize=chunksize, pool=any_pool)
        np.testing.assert_array_equal(arr, np.arange(10.0) + 2)


@pytest.mark.long
def test_outputs_of_chunks_are_combined_where_they_are(any_pool):
    @nb.njit
    def kernel(x, sums, count):
        sums[:] += x[0]
        count[()] += x.shape[0]

    with sc.SharedArray(np.arange(50.0).reshape(10, 5)) as arr:
        sums, count = sc.parallel_reduce(
            kernel,
            sc.read(arr),
            sc.per_chunk(5),
            sc.per_chunk((), np.int32),
            combine=np.add,
            chunksize=1,
            pool=any_pool,
        )
        np.testing.assert_array_equal(sums, arr.array.sum(axis=0))
        assert (count, count.dtype) == (10, np.int32)


def test_large_results_and_random_numbers(any_pool):
    def kernel(x, rng):
        return rng.integers(100, size=(100, 30))

    with sc.SharedArray(np.zeros(4)) as arr:
        found = sc.parallel_reduce(
            kernel, arr, sc.rng(5), combine=np.add, chunksize=1, pool=any_pool
        )
        draws = [
            np.random.default_rng(own).integers(100, size=(100, 30))
            for own in np.random.SeedSequence(5).spawn(4)
        ]
        np.testing.assert_array_equal(found, sum(draws))


@pytest.mark.parametrize("kernel", [total, np.sum, nb.njit(lambda x: x.sum()), np.max])
def test_an_initial_value_comes_first(any_pool, kernel):
    with sc.SharedArray(np.arange(9.0)) as arr, sc.SharedArray(np.zeros((0,))) as empty:
        for chunksize in (None, 2):
            options = {"combine": lambda a, b: a - b, "chunksize": chunksize, "pool": any_pool}
            plain = sc.parallel_reduce(kernel, arr, **options)
            assert sc.parallel_reduce(kernel, arr, initial=7, **options) == 7 - plain
            assert sc.parallel_reduce(kernel, empty, initial=7, **options) == 7
            with pytest.raises(ValueError, match="nothing to reduce.*initial"):
                sc.parallel_reduce(kernel, empty, **options)


def test_an_initial_tuple():
    with sc.SharedArray(DATA) as arr:
        combine = KERNELS["tuple"][1]
        for initial in ((-1.0, 0, 5.0, False), (-1, 10**6, 5, False)):
            low, place, sums, some = sc.parallel_reduce(
                moments, arr, combine=combine, initial=initial, backend="threads"
            )
            assert (low, some) == (-1, False)
            assert sums > 5
            assert place >= initial[1]
        for initial in (1.0, (1.0, 2), (1.0, 2.5, 1.0, True)):
            with pytest.raises(TypeError, match="initial: expected"):
                sc.parallel_reduce(
                    moments, arr, combine=combine, initial=initial, backend="threads"
                )


def test_python_numbers_mix_as_in_python(any_pool):
    with sc.SharedArray(np.arange(-5.0, 5)) as arr:
        kernel = lambda x: sum(v for v in x.tolist() if v > 0)  # noqa: E731
        assert sc.parallel_reduce(kernel, arr, combine=np.add, chunksize=2, pool=any_pool) == 10


def test_calls_at_the_same_time_do_not_meet():
    with sc.Pool(2) as pool, sc.SharedArray(DATA) as arr, sc.SharedArray(-DATA) as other:
        expected = [sc.parallel_reduce(total, x, combine=np.add, pool=pool) for x in (arr, other)]
        found = [[], []]

        def calls(number, x):
            for _ in range(30):
                found[number].append(sc.parallel_reduce(total, x, combine=np.add, pool=pool))

        threads = [
            threading.Thread(target=calls, args=(number, x))
            for number, x in [(0, arr), (1, other), (0, arr)]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [set(one) for one in found] == [{expected[0]}, {expected[1]}]


def test_what_was_kept_goes_with_the_array(any_pool):
    with sc.SharedArray(DATA) as arr:
        for chunksize in (None, 10**6):
            sc.parallel_reduce(total, arr, combine=np.add, chunksize=chunksize, pool=any_pool)
        before = len(_kept())
    assert len(_kept()) <= before - 2


def _kept():
    from shmcompute.algorithms import reduce

    return dict(reduce._known._calls)


@nb.njit
def returns_nothing(x):
    x[0] = 1


def test_a_jitted_kernel_that_returns_no_number_is_refused_before_it_runs(any_pool):
    text = nb.njit(lambda x: "text")
    with sc.SharedArray(np.zeros(9)) as arr:
        for kernel in (returns_nothing, text):
            with pytest.raises(TypeError, match="a reduction's kernel returns"):
                sc.parallel_reduce(kernel, arr, combine=np.add, pool=any_pool)
        assert not arr.array.any()


@pytest.mark.parametrize("result", [None, "text", object(), (), (1, None), [[1], [1, 2]]])
def test_so_is_a_python_kernel_when_it_returns(any_pool, result):
    if not isinstance(result, list):
        with (
            sc.SharedArray(np.zeros(9)) as arr,
            pytest.raises(TypeError, match="expected a number, a tuple of numbers"),
        ):
            made = (lambda x: object()) if type(result) is object else (lambda x: result)
            sc.parallel_reduce(made, arr, combine=np.add, pool=any_pool)


@pytest.mark.parametrize(
    "kernel",
    [
        lambda x: (1, 2) if x[0] else 3,
        lambda x: (1, 2) if x[0] else (1, 2, 3),
        lambda x: np.zeros(2 + int(x[0])),
        lambda x: np.float32(1) if x[0] else np.float64(1),
    ],
)
def test_chunks_must_return_what_is_alike(any_pool, kernel):
    with (
        sc.SharedArray(np.arange(2.0)) as arr,
        pytest.raises(TypeError, match=r"returned .* and .*alike"),
    ):
        sc.parallel_reduce(kernel, arr, combine=np.add, chunksize=1, pool=any_pool)


@pytest.mark.parametrize(
    ("kernel", "combine", "message"),
    [
        (total, 3, "combine: expected a ufunc"),
        (total, None, "combine: expected a ufunc"),
        (total, (np.add, 3), "combine: expected a ufunc"),
        (total, np.negative, "negative of 1 inputs"),
        (total, np.divmod, "divmod of 2 inputs and 2 outputs"),
        (total, (np.add, np.add), "for each of the 1 parts"),
        (moments, (np.add, np.add), "for each of the 4 parts"),
        (total, np.greater, "greater makes bool of two float64"),
        (total, np.bitwise_and, "bitwise_and does not take two float64"),
        (len, np.divide, "divide makes float64 of two int64"),
        (total, lambda a, b: (a, b), "combine .*expected float64, as chunks gave, got"),
        (total, lambda a, b: None, "combine .*expected float64"),
        (total, lambda a, b: np.zeros(2), r"got float64 of shape \(2,\)"),
        (len, lambda a, b: a / b, "expected int64, as chunks gave, got float64"),
        (moments, lambda a, b: 1.0, "expected a tuple of 4"),
        (moments, lambda a, b: (1.0, 2), "expected a tuple of 4"),
        (counts, lambda a, b: a[:3], r"expected int64 of shape \(20,\)"),
    ],
)
def test_combine_gives_what_it_was_given(kernel, combine, message):
    with sc.SharedArray(DATA) as arr, pytest.raises(TypeError, match=message):
        sc.parallel_reduce(kernel, arr, combine=combine, backend="threads", chunksize=9000)


def test_what_is_known_before_is_refused_before_anything_runs():
    with sc.SharedArray(np.zeros(9)) as arr:

        @nb.njit
        def kernel(x):
            x[:] = 3
            return 1.0

        with pytest.raises(TypeError, match="greater"):
            sc.parallel_reduce(kernel, arr, combine=np.greater, backend="threads")
        for wrong in (np.add, [total], "total"):
            with pytest.raises(TypeError, match="kernel"):
                sc.parallel_reduce(wrong, arr, combine=np.add, backend="threads")
        with pytest.raises(TypeError, match="given 1 arguments"):
            sc.parallel_reduce(lambda: 1, arr, combine=np.add, backend="threads")
        with pytest.raises(ValueError, match="nothing to split"):
            sc.parallel_reduce(total, sc.whole(arr), combine=np.add, backend="threads")
        with pytest.raises(ValueError, match="schedule"):
            sc.parallel_reduce(total, arr, combine=np.add, schedule="fast", backend="threads")
        with pytest.raises(ValueError, match="chunksize"):
            sc.parallel_reduce(total, arr, combine=np.add, chunksize=0, backend="threads")
        assert not arr.array.any()
    with pytest.raises(sc.errors.ClosedError):
        sc.parallel_reduce(total, arr, combine=np.add, backend="threads")


def test_what_a_kernel_raises_names_its_chunk(any_pool):
    @nb.njit
    def fails(x):
        if x[-1] > 5:
            raise ValueError("too large")
        return x[0]

    def fails_too(x):
        raise ValueError("too large")

    # Where Python calls a jitted function that raises, Numba keeps what it was passed: no segment.
    failing = (fails_too,) if any_pool.backend == "serial" else (fails, fails_too)
    with sc.SharedArray(np.arange(10.0)) as arr:
        for kernel in failing:
            for chunksize in (None, 4):
                with pytest.raises(ValueError, match="too large") as caught:
                    sc.parallel_reduce(
                        kernel, arr, combine=np.add, chunksize=chunksize, pool=any_pool
                    )
                assert any("in chunk [" in note for note in caught.value.__notes__)


@pytest.mark.long
def test_a_worker_that_dies_is_an_error_and_the_next_call_works():
    def dies(x):
        os._exit(3)

    with sc.Pool(2, start_method="fork") as pool, sc.SharedArray(DATA) as arr:
        known = sc.parallel_reduce(total, arr, combine=np.add, pool=pool)
        with pytest.raises(sc.errors.WorkerLostError):
            sc.parallel_reduce(dies, arr, combine=np.add, pool=pool)
        assert sc.parallel_reduce(total, arr, combine=np.add, pool=pool) == known


@nb.njit
def first_index(x, first, factor):
    return first * factor


def test_an_offset_in_a_longer_array_is_that_of_this_call(any_pool):
    with sc.SharedArray.zeros(4) as arr:
        for base in (5, 9, 5):
            found = sc.parallel_reduce(
                first_index, sc.read(arr), sc.offset + base, 2, combine=np.minimum, pool=any_pool
            )
            assert found == 2 * base

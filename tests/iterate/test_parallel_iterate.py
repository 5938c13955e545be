"""`parallel_iterate`: sweep after sweep, to the bit, however they are run."""

from __future__ import annotations

from contextlib import ExitStack

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import KernelTypeError
from shmcompute.plans import sweep_state


@nb.njit
def heat(new, up, middle, down):
    for i in range(new.shape[0]):
        for j in range(1, new.shape[1] - 1):
            across = middle[i, j - 1] + middle[i, j + 1]
            new[i, j] = middle[i, j] + 0.1 * (up[i, j] + down[i, j] + across - 4 * middle[i, j])


def heat_python(new, up, middle, down):
    across = middle[:, :-2] + middle[:, 2:]
    inner = middle[:, 1:-1]
    new[:, 1:-1] = inner + 0.1 * (up[:, 1:-1] + down[:, 1:-1] + across - 4 * inner)


def rows_of(new, old):
    """The arguments of `heat`."""
    return new[1:-1], sc.read(old[:-2]), sc.read(old[1:-1]), sc.read(old[2:])


def swept(step, start, times):
    old, new = start.copy(), start.copy()
    for _ in range(times):
        step(new[1:-1], old[:-2], old[1:-1], old[2:])
        old, new = new, old
    return old


@pytest.fixture(params=["forkserver", "caller", "threads", "serial"])
def some_pool(request, pools):
    """A pool of each way to run sweeps."""
    return pools[request.param]


START = np.random.default_rng(0).random((150, 20))


@pytest.mark.parametrize("kernel", [heat, heat_python], ids=["jitted", "python"])
@pytest.mark.parametrize("times", [0, 1, 24])
def test_sweeps_are_what_they_are_in_turn(any_pool, kernel, times):
    with sc.SharedArray(START) as old, sc.SharedArray(START) as new:
        last = sc.parallel_iterate(
            kernel, *rows_of(new, old), times=times, swap=(old, new), pool=any_pool
        )
        assert last is (new if times % 2 else old)
        np.testing.assert_array_equal(last.array, swept(kernel, START, times))


@pytest.mark.parametrize(
    ("kernel", "runs"), [(heat, 1), (heat_python, 9)], ids=["jitted", "python"]
)
def test_machine_code_makes_many_sweeps_in_one_run(pools, kernel, runs):
    pool = pools["threads"]
    with sc.SharedArray(START) as old, sc.SharedArray(START) as new, sc.trace() as told:
        given = rows_of(new, old)
        sc.parallel_iterate(kernel, *given, times=9, swap=(old, new), pool=pool)
    assert [call.name for call in told.calls] == [kernel.__name__] * runs


@pytest.mark.parametrize("workers", range(1, 8))
@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_bits_are_equal_for_any_number_of_workers(workers, chunksize):
    start = np.random.default_rng(1).random((1200, 4))
    with (
        sc.Pool(workers, backend="threads") as pool,
        sc.SharedArray(start) as old,
        sc.SharedArray(start) as new,
    ):
        last = sc.parallel_iterate(
            heat, *rows_of(new, old), times=83, swap=(new, old), chunksize=chunksize, pool=pool
        )
        np.testing.assert_array_equal(last.array, swept(heat, start, 83))


@pytest.mark.parametrize("schedule", ["dynamic", "guided"])
def test_any_schedule_will_do(some_pool, schedule):
    with sc.SharedArray(START) as old, sc.SharedArray(START) as new:
        last = sc.parallel_iterate(
            heat, *rows_of(new, old), times=4, swap=(old, new), pool=some_pool, schedule=schedule
        )
        np.testing.assert_array_equal(last.array, swept(heat, START, 4))


@nb.njit
def electric(ey, before, here):
    for i in range(ey.shape[0]):
        for j in range(ey.shape[1]):
            ey[i, j] -= 0.5 * (here[i, j] - before[i, j])


@nb.njit
def along(ex, hz):
    for i in range(ex.shape[0]):
        for j in range(1, ex.shape[1]):
            ex[i, j] -= 0.5 * (hz[i, j] - hz[i, j - 1])


@nb.njit
def magnetic(hz, ex, here, after):
    for i in range(hz.shape[0]):
        for j in range(hz.shape[1] - 1):
            hz[i, j] -= 0.7 * (ex[i, j + 1] - ex[i, j] + after[i, j] - here[i, j])


@pytest.mark.long
@pytest.mark.parametrize("times", [1, 20])
def test_a_chain_goes_kernel_after_kernel(any_pool, times):
    rng = np.random.default_rng(2)
    ex, ey, hz = rng.random((300, 9)), rng.random((301, 9)), rng.random((301, 9))
    with sc.SharedArray(ex) as x, sc.SharedArray(ey) as y, sc.SharedArray(hz) as h:
        chain = [
            (electric, y[:-1], sc.read(h[:-1]), sc.read(h[1:])),
            (along, x, sc.read(h[1:])),
            (magnetic, h[1:], sc.read(x), sc.read(y[:-1]), sc.read(y[1:])),
        ]
        last = sc.parallel_iterate(chain, times=times, pool=any_pool)
        for _ in range(times):
            electric(ey[:-1], hz[:-1], hz[1:])
            along(ex, hz[1:])
            magnetic(hz[1:], ex, ey[:-1], ey[1:])
        for found, expected in ((x, ex), (y, ey), (h, hz)):
            np.testing.assert_array_equal(found.array, expected)
        assert np.shares_memory(last, y.array)


@nb.njit
def add_total(new, old, factor):
    total = 0.0
    for i in range(old.size):
        total += old[i]
    for i in range(new.size):
        new[i] += total * factor


def test_kernels_may_see_all_of_the_other_array(some_pool):
    start = np.arange(40.0)
    with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
        last = sc.parallel_iterate(
            add_total, new, sc.whole(old), 0.5, times=5, swap=(old, new), pool=some_pool
        )
        a, b = start.copy(), start.copy()
        for _ in range(5):
            add_total(b, a, 0.5)
            a, b = b, a
        np.testing.assert_array_equal(last.array, a)


def test_ufuncs_and_arrays_that_do_not_swap(some_pool):
    with sc.SharedArray(np.ones(10)) as arr:
        assert sc.parallel_iterate(np.add, arr, 1.5, times=4, pool=some_pool) is arr
        np.testing.assert_array_equal(arr.array, np.full(10, 7.0))


@nb.njit
def add_start(x, start, amount):
    for i in range(x.size):
        x[i] += start + i + amount


def test_offset_is_where_a_slab_begins(some_pool):
    with sc.SharedArray.zeros(500) as arr:
        sc.parallel_iterate(add_start, arr, sc.offset, 2, times=30, pool=some_pool)
        np.testing.assert_array_equal(arr.array, 30 * (np.arange(500.0) + 2))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("axis", [0, -1])
def test_along_any_axis(some_pool, order, axis):
    start = np.random.default_rng(3).random((40, 50)).copy(order)
    with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
        views = [np.moveaxis(array.array, axis, 0) for array in (new, old)]
        last = sc.parallel_iterate(
            heat, *rows_of(*views), times=11, swap=(old, new), pool=some_pool
        )
        expected = swept(heat, np.moveaxis(start, axis, 0), 11)
        np.testing.assert_array_equal(np.moveaxis(last.array, axis, 0), expected)


def test_strides_backwards(some_pool):
    with sc.SharedArray(START) as old, sc.SharedArray(START) as new:
        last = sc.parallel_iterate(
            heat, *rows_of(new[::-1], old[::-1]), times=6, swap=(old, new), pool=some_pool
        )
        np.testing.assert_array_equal(last.array[::-1], swept(heat, START[::-1], 6))


@nb.njit
def relax(new, left, right):
    moved = 0.0
    for i in range(new.size):
        value = 0.5 * (left[i] + right[i])
        moved = max(moved, abs(value - left[i]))
        new[i] = value
    return moved


def relax_python(new, left, right):
    new[:] = 0.5 * (left + right)
    return np.abs(new - left).max()


@pytest.mark.parametrize("kernel", [relax, relax_python], ids=["jitted", "python"])
@pytest.mark.parametrize("every", [1, 4])
def test_until_is_asked_after_every_so_many_sweeps(any_pool, kernel, every):
    start = np.random.default_rng(4).random(300)
    numbers, asked = [], []
    a, b = start.copy(), start.copy()
    for _ in range(30):
        numbers.append(relax(b[1:-1], a[:-2], a[2:]))
        a, b = b, a

    def until(number):
        asked.append(number)
        return len(asked) * every >= 15

    with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
        args = new[1:-1], sc.read(old[:-2]), sc.read(old[2:])
        last = sc.parallel_iterate(
            kernel, *args, times=50, swap=(old, new), until=until, every=every, pool=any_pool
        )
        done = len(asked) * every
        a, b = start.copy(), start.copy()
        for _ in range(done):
            relax(b[1:-1], a[:-2], a[2:])
            a, b = b, a
        assert done == -(-15 // every) * every
        np.testing.assert_array_equal(last.array, a)
        assert asked == numbers[every - 1 : done : every]


def test_sweeps_that_are_left_when_until_never_holds(some_pool):
    with sc.SharedArray(np.zeros(20)) as arr:
        asked = []
        sc.parallel_iterate(
            counting, arr, times=11, until=asked.append, every=4, combine=np.add, pool=some_pool
        )
        assert asked == [80.0, 160.0]
        assert (arr.array == 11).all()


@nb.njit
def counting(x):
    total = 0.0
    for i in range(x.size):
        x[i] += 1
        total += x[i]
    return total


def test_numbers_are_the_same_for_any_number_of_workers():
    start, found = np.random.default_rng(5).random(1000), set()
    for workers in (1, 2, 3):
        with sc.Pool(workers, backend="threads") as pool, sc.SharedArray(start) as arr:
            sc.parallel_iterate(
                counting, arr, times=1, until=found.add, combine=lambda a, b: a + b, pool=pool
            )
    assert len(found) == 1


@pytest.mark.parametrize("kernel", [heat, heat_python], ids=["jitted", "python"])
def test_until_wants_a_number(some_pool, kernel):
    with (
        sc.SharedArray(START) as old,
        sc.SharedArray(START) as new,
        pytest.raises(KernelTypeError, match="return.* real number"),
    ):
        sc.parallel_iterate(
            kernel, *rows_of(new, old), times=5, swap=(old, new), until=bool, pool=some_pool
        )


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"times": -1}, ValueError, "times: expected at least 0, got -1"),
        ({"times": 2.0}, TypeError, "times: expected a whole number"),
        ({"times": True}, TypeError, "times: expected a whole number"),
        ({"times": 1, "every": 0, "until": bool}, ValueError, "every"),
        ({"times": 1, "until": 3}, TypeError, "until: expected a callable"),
        ({"times": 1, "until": bool, "combine": 3}, TypeError, "combine: expected a callable"),
        ({"times": 1, "swap": 5}, TypeError, "swap: expected a pair"),
        ({"times": 1, "swap": (np.zeros(3), np.zeros(3))}, TypeError, "two SharedArrays"),
        ({"times": 1, "timeout": 0}, ValueError, "timeout"),
        ({"times": 1, "axis": 3}, ValueError, "axis 3 is out of range"),
        ({"times": 1, "backend": "none"}, ValueError, "backend"),
    ],
)
def test_bad_options_are_refused(options, error, match):
    with sc.SharedArray(np.zeros(9)) as arr, pytest.raises(error, match=match):
        sc.parallel_iterate(counting, arr, **options)


def test_arrays_that_swap_are_alike_and_two_and_arguments():
    with (
        sc.SharedArray.zeros((4, 4)) as arr,
        sc.SharedArray.zeros((4, 5)) as longer,
        sc.SharedArray.zeros((4, 4), np.float32) as single,
        sc.SharedArray.zeros((4, 4), order="F") as columns,
        sc.SharedArray.zeros((4, 4)) as other,
    ):
        for wrong, what in ((longer, "shape"), (single, "dtype"), (columns, "strides")):
            with pytest.raises(ValueError, match=f"swap.*their {what} is .* and "):
                sc.parallel_iterate(np.copyto, arr, wrong, times=1, swap=(arr, wrong))
        with pytest.raises(ValueError, match="two different"):
            sc.parallel_iterate(np.copyto, arr, other, times=1, swap=(arr, arr))
        with pytest.raises(ValueError, match="swap: array 1 .* is no argument"):
            sc.parallel_iterate(np.negative, arr, times=1, swap=(arr, other))


def test_outputs_of_chunks_have_no_meaning_in_sweeps():
    with sc.SharedArray.zeros(4) as arr, pytest.raises(ValueError, match="per_chunk"):
        sc.parallel_iterate(lambda x, out: None, arr, sc.per_chunk(()), times=2)


def test_what_returns_a_number_wants_until():
    with sc.SharedArray.zeros(4) as arr, pytest.raises(KernelTypeError, match="returns float64"):
        sc.parallel_iterate(counting, arr, times=2)


@nb.njit
def fails_at(x, when):
    for i in range(x.size):
        if x[i] == when:
            raise ZeroDivisionError("so it is")
        x[i] += 1


def test_what_a_kernel_raises_says_after_which_sweep(some_pool):
    with sc.SharedArray.zeros(100) as arr:
        with pytest.raises(ZeroDivisionError, match="so it is") as caught:
            sc.parallel_iterate(fails_at, arr, 40, times=1000, pool=some_pool)
        assert any("after sweep" in note for note in caught.value.__notes__)
        arr[:] = 0
        sc.parallel_iterate(fails_at, arr, -1, times=3, pool=some_pool)
        assert (arr.array == 3).all()


class InTurns:
    """A pace of two phases a run, every other one done by one worker alone."""

    def __init__(self, *_):
        self.some, self.alone = 2, True

    def ran(self, *_):
        self.alone = not self.alone


@pytest.mark.parametrize("size", [START.shape[0], 1000])  # with and without blocks of time
def test_one_worker_alone_does_what_all_do(some_pool, size, monkeypatch):
    monkeypatch.setattr(sweep_state, "Pace", InTurns)
    start = np.random.default_rng(1).random((size, 6))
    with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
        last = sc.parallel_iterate(
            heat, *rows_of(new, old), times=131, swap=(old, new), pool=some_pool
        )
        np.testing.assert_array_equal(last.array, swept(heat, start, 131))


class AloneAfterwards(InTurns):
    """The first run is of all workers, and of some phases."""

    def __init__(self, *_):
        self.some, self.alone = 4, False


@nb.njit
def slow_once(new, up, middle, down, first, sweep, late):
    if sweep == late and first >= new.shape[0] // 2:
        for turn in range(10_000_000):  # longer than others wait for who is late
            new[0, 1] += np.sin(turn)
    heat(new, up, middle, down)


@pytest.mark.parametrize("late", [1, pytest.param(2, marks=pytest.mark.long)])
@pytest.mark.parametrize("pool", ["forkserver", "caller", "threads"])
@pytest.mark.parametrize("size", [40, pytest.param(300, marks=pytest.mark.long)])
def test_one_worker_alone_goes_on_where_each_part_is(pools, pool, late, size, monkeypatch):
    monkeypatch.setattr(sweep_state, "Pace", AloneAfterwards)
    start = np.random.default_rng(1).random((size, 6))
    with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
        last = sc.parallel_iterate(
            slow_once,
            *rows_of(new, old),
            sc.offset,
            sc.sweep,
            late,
            times=21,
            swap=(old, new),
            pool=pools[pool],
        )
        np.testing.assert_array_equal(last.array, swept(heat, start, 21))


@nb.njit
def fails_from(start, offset, x, sweep):
    if sweep == 5 and offset >= start:
        raise ZeroDivisionError("so it is")
    for i in range(x.size):
        x[i] += 1


@pytest.mark.parametrize("pool", ["caller", "threads"])
def test_who_works_alone_says_in_which_chunk_a_kernel_raised(pools, pool, monkeypatch):
    monkeypatch.setattr(sweep_state, "Pace", InTurns)
    with sc.SharedArray.zeros(100) as arr:
        given = 50, sc.offset, arr, sc.sweep
        with pytest.raises(ZeroDivisionError, match="so it is") as caught:
            sc.parallel_iterate(fails_from, *given, times=8, pool=pools[pool])
        assert any("in chunk [50, 100)" in note for note in caught.value.__notes__)
        assert (arr.array[:50] >= 6).all()
        assert (arr.array[50:] == 5).all()


def test_debug_runs_sweep_by_sweep(some_pool):
    with sc.SharedArray(START) as old, sc.SharedArray(START) as new:
        last = sc.parallel_iterate(
            heat, *rows_of(new, old), times=3, swap=(old, new), pool=some_pool, debug=True
        )
        np.testing.assert_array_equal(last.array, swept(heat, START, 3))


def test_arrays_of_other_storages(any_pool, any_storage):
    with ExitStack() as opened:
        kinds = [{key: any_storage[key] for key in any_storage} for _ in range(2)]
        old, new = (opened.enter_context(sc.SharedArray(START, **kind)) for kind in kinds)
        last = sc.parallel_iterate(
            heat, *rows_of(new, old), times=9, swap=(old, new), pool=any_pool
        )
        np.testing.assert_array_equal(last.array, swept(heat, START, 9))

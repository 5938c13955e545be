"""Calls whose backend is chosen: right whatever is chosen, and run just once.

No test here waits for times: choices are made up where they matter.
"""

import os
import time
from concurrent.futures import CancelledError
from itertools import cycle

import numba as nb
import numpy as np
import pytest
from kernels import run

import shmcompute as sc
from shmcompute import testing, tuned
from shmcompute.default_pools import default_pools
from shmcompute.errors import ClosedError, WorkerLostError
from shmcompute.plans import Options
from shmcompute.tuning import Choice, Record

BACKENDS = ("serial", "threads", "processes")


@nb.njit
def add_one(x):
    for i in range(x.size):
        x[i] += 1


@nb.njit
def add_to(first, last, x, value):
    for i in range(first, last):
        x[i] += value


@nb.njit
def total(x):
    return x.sum()


@nb.njit
def relax(new, old):
    for i in range(new.size):
        new[i] = 0.5 * (old[i] + old[i + 2])


def add_one_in_python(x):
    x += 1


@pytest.fixture(scope="module")
def pool():
    with sc.Pool(2, backend="auto") as pool:
        yield pool.ready()


@pytest.fixture
def in_turn(monkeypatch):
    """Each call gets the next backend of those that can run it; some calls are not measured."""
    turn, gone = cycle(BACKENDS), []

    def choose(self, starts):
        possible = [one for one in BACKENDS if one in starts and one not in self.refused]
        choice = next(one for one in turn if one in possible)
        return Choice(choice, "its turn")

    def add(self, choice, seconds):
        gone.append(choice.backend)
        return len(gone) % 3

    monkeypatch.setattr(Record, "choose", choose)
    monkeypatch.setattr(Record, "add", add)
    return gone


@pytest.mark.long
@pytest.mark.parametrize("kernel", [add_one, add_one_in_python, lambda x: np.add(x, 1, out=x)])
def test_a_call_runs_once_wherever_it_runs(pool, in_turn, kernel):
    with sc.SharedArray.zeros(100) as arr:
        for count in range(1, 20):
            sc.parallel_apply(kernel, arr, pool=pool)
            np.testing.assert_array_equal(arr.array, count)
    assert set(in_turn) == set(BACKENDS)


def test_a_plan_runs_once_wherever_it_runs(pool, in_turn):
    with sc.SharedArray.zeros(100) as arr:
        step = sc.plan(add_one, arr, pool=pool)
        for count in range(1, 20):
            step()
            np.testing.assert_array_equal(arr.array, count)
    assert set(in_turn) == set(BACKENDS)
    with pytest.raises(ClosedError):
        step()


def test_a_plan_takes_other_numbers_and_ranges(pool, in_turn):
    with sc.SharedArray.zeros(100) as arr:
        step = sc.plan(add_to, range(100), sc.shared(arr), 1.0, pool=pool)
        expected = np.zeros(100)
        for stop in range(60, 100):
            step(range(3, stop), float(stop))
            expected[3:stop] += stop
            np.testing.assert_array_equal(arr.array, expected)
        with pytest.raises(TypeError, match="expected a range and these numbers"):
            step(range(3), "one")
    assert set(in_turn) == set(BACKENDS)


def test_sweeps_over_a_range_know_their_number(pool, in_turn):
    with sc.SharedArray.zeros(10) as arr:
        for _ in range(6):
            sc.parallel_iterate(add_to, range(10), sc.shared(arr), sc.sweep, times=4, pool=pool)
        np.testing.assert_array_equal(arr.array, 6 * (0 + 1 + 2 + 3))
    assert set(in_turn) == set(BACKENDS)


def test_loops_of_all_lengths_are_cut_where_they_run(pool, in_turn):
    with sc.SharedArray.zeros(100) as arr:
        expected = np.zeros(100)
        for stop in range(60, 100):
            sc.parallel_for(add_to, 3, stop, sc.shared(arr), float(stop), pool=pool)
            expected[3:stop] += stop
            np.testing.assert_array_equal(arr.array, expected)
    assert set(in_turn) == set(BACKENDS)


def test_numbers_are_those_of_the_call(pool, in_turn):
    with sc.SharedArray.zeros(10) as arr:
        for count in range(20):
            sc.parallel_apply(np.add, arr, float(count), pool=pool)
        np.testing.assert_array_equal(arr.array, sum(range(20)))


def test_reductions_are_the_same_bits_wherever_they_run(pool, in_turn):
    data = np.random.default_rng(0).random(100_000)
    with sc.SharedArray(data) as arr, sc.Pool(backend="serial") as serial:
        expected = sc.parallel_reduce(total, sc.read(arr), combine=np.add, pool=serial)
        for _ in range(12):
            found = sc.parallel_reduce(total, sc.read(arr), combine=np.add, pool=pool)
            assert found == expected
    assert set(in_turn) == set(BACKENDS)


def test_sweeps_are_the_same_bits_wherever_they_run(pool, in_turn):
    start = np.random.default_rng(0).random(500)

    def swept(pool):
        with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
            seen = sc.parallel_iterate(
                relax, new[1:-1], sc.halo(old, 1), times=7, swap=(old, new), pool=pool
            )
            return seen.array.copy()

    with sc.Pool(backend="serial") as serial:
        expected = swept(serial)
    for _ in range(6):
        np.testing.assert_array_equal(swept(pool), expected)
    assert set(in_turn) == set(BACKENDS)


def test_scans_and_tasks_run(pool):
    np.testing.assert_array_equal(
        sc.parallel_scan(np.add, np.arange(9), pool=pool), np.arange(9).cumsum()
    )
    assert pool.submit(os.getpid).result() in pool.pids


def test_one_that_sees_its_chunks_sees_the_same_ones_always(pool, in_turn):
    """So it is not run serially, unless all backends cut alike."""
    with sc.SharedArray.zeros(100) as arr:
        for _ in range(6):
            with sc.parallel_apply(_count, arr, sc.per_chunk(()), pool=pool) as rows:
                assert rows.shape == (2,)
        assert "serial" not in in_turn
        with sc.parallel_apply(_count, arr, sc.per_chunk(()), pool=pool, chunksize=10) as rows:
            assert rows.shape == (10,)
        for _ in range(2):
            sc.parallel_apply(_count, arr, sc.per_chunk(()), pool=pool, chunksize=10).close()
    assert "serial" in in_turn


def _count(x, out):
    out[()] = len(x)


def test_plain_arrays_stay_in_this_process(pool, in_turn):
    data = np.zeros(50)
    for _ in range(6):
        sc.parallel_apply(add_one, data, pool=pool)
    np.testing.assert_array_equal(data, 6)
    assert set(in_turn) == {"serial", "threads"}


def test_a_kernel_that_does_not_travel_stays_in_this_process_and_runs_once(pool, in_turn):
    class Stays:
        calls = 0

        def __call__(self, x):
            x += 1

        def __reduce__(self):
            raise TypeError("it stays")

    with sc.SharedArray.zeros(10) as arr:
        for count in range(1, 9):
            sc.parallel_apply(Stays(), arr, pool=pool)
            np.testing.assert_array_equal(arr.array, count)
    assert set(in_turn) == {"serial", "threads"}


def test_a_kernel_that_kills_its_worker_is_run_by_workers_from_then_on(pool, in_turn):
    here = os.getpid()

    def dies(x):
        if os.getpid() != here:
            os._exit(3)

    with sc.SharedArray.zeros(10) as arr:
        with pytest.raises(WorkerLostError):
            for _ in range(6):
                sc.parallel_apply(dies, arr, pool=pool)
        for _ in range(3):
            with pytest.raises(WorkerLostError):
                sc.parallel_apply(dies, arr, pool=pool)


def test_an_error_of_a_kernel_is_raised_once_and_teaches_nothing(pool, in_turn):
    calls = []

    def fails(x):
        calls.append(1)
        raise ValueError("no")

    with sc.SharedArray.zeros(1) as arr, pytest.raises(ValueError, match="no"):
        sc.parallel_apply(fails, arr, pool=pool)
    assert (calls, in_turn) == ([1], [])


@pytest.mark.parametrize("how", [{"timeout": 50.0}, {"retries": 1}, {"debug": True}])
def test_what_only_processes_do_they_do(pool, in_turn, how):
    with sc.SharedArray.zeros(2, np.int64) as arr:

        def where(x):
            x[:] = os.getpid()

        sc.parallel_apply(where, arr, pool=pool, **how)
        assert set(arr.array) <= set(pool.pids)
        arr.array[:] = 0
        sc.plan(where, arr, pool=pool, **how)()
        assert set(arr.array) <= set(pool.pids)
    assert in_turn == []


def test_processes_are_not_started_for_what_is_quick():
    with sc.Pool(2, backend="auto") as pool, sc.SharedArray.zeros(100) as arr:
        for _ in range(50):
            sc.parallel_apply(add_one_in_python, arr, pool=pool)
        assert (pool.pids, arr.array[0]) == ([], 50)


def test_the_choice_and_its_reason_can_be_asked_for(pool):
    with sc.SharedArray.zeros(100) as arr:
        choice = tuned.choice_of(pool, [(add_one, arr)], Options())
        assert choice.backend == "serial"
        assert "too few" in choice.why
        choice = tuned.choice_of(pool, [(add_one, arr)], Options(), timeout=1.0)
        assert (choice.backend, choice.why) == ("processes", "timeout= can only stop processes")
        np.testing.assert_array_equal(arr.array, 0)
    with sc.Pool(2, backend="threads") as threads:
        assert tuned.choice_of(threads, [], Options()).backend == "threads"


def test_a_call_within_a_kernel_is_serial(pool):
    with sc.SharedArray.zeros(4) as arr, sc.SharedArray.zeros(4) as other:

        def outer(x):
            x += 1
            sc.parallel_apply(add_one, other, backend="auto")

        sc.parallel_apply(outer, arr, pool=pool)
        assert other.array[0] >= 1


def test_wrong_arguments_are_refused_as_elsewhere(pool):
    with sc.SharedArray.zeros(4) as arr:
        with pytest.raises(TypeError, match="axis: expected a whole number"):
            sc.parallel_apply(add_one, arr, axis=[0], pool=pool)
        with pytest.raises(ValueError, match="unknown schedule"):
            sc.parallel_apply(add_one, arr, schedule="fair", pool=pool)
        with pytest.raises(ValueError, match="but the pool's is 'auto'; give one"):
            sc.parallel_apply(add_one, arr, pool=pool, backend="threads")
        with pytest.raises(ValueError, match="'serial', 'auto'"):
            sc.parallel_apply(add_one, arr, backend="best")
        with pytest.raises(ValueError, match="nothing to split"):
            sc.parallel_apply(add_one, 1.0, pool=pool)
    with pytest.raises(ClosedError):
        sc.parallel_apply(add_one, arr, pool=pool)


def test_a_closed_pool_takes_no_calls():
    with sc.Pool(2, backend="auto") as pool, sc.SharedArray.zeros(4) as arr:
        for _ in range(6):
            sc.parallel_apply(add_one, arr, pool=pool)
        pool.close()
        with pytest.raises(ClosedError, match="this pool is closed"):
            sc.parallel_apply(add_one, arr, pool=pool)


def test_a_recompiled_kernel_is_found_out(pool):
    scope = {}

    def kernel(x):
        x += scope.get("by", 1)

    with sc.SharedArray.zeros(4) as arr:
        made = nb.njit(lambda x: add_one(x))
        for _ in range(8):
            sc.parallel_apply(made, arr, pool=pool)
        made.recompile()
        for _ in range(8):
            sc.parallel_apply(made, arr, pool=pool)
        np.testing.assert_array_equal(arr.array, 16)


def test_the_environment_may_say_auto(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_BACKEND", "auto")
    with sc.Pool(2) as pool, sc.SharedArray.zeros(4) as arr:
        assert repr(pool) == "Pool(backend='auto', workers=2)"
        sc.parallel_apply(add_one, arr)
        assert default_pools["auto"].backend == "auto"
        np.testing.assert_array_equal(sc.parallel_scan(np.add, arr.array), [1, 2, 3, 4])


def test_a_forked_child_is_told_so_and_its_own_calls_work():
    done = run(
        """
        import os, numpy as np, shmcompute as sc
        from shmcompute.errors import ForkedPoolError
        pool = sc.Pool(2, backend="auto")
        with sc.SharedArray(np.ones(4)) as arr:
            for _ in range(6):
                sc.parallel_apply(np.negative, arr, pool=pool)
                sc.parallel_apply(np.negative, arr, backend="auto")
            if (child := os.fork()) == 0:
                try:
                    sc.parallel_apply(np.negative, arr, pool=pool)
                except ForkedPoolError:
                    sc.parallel_apply(np.negative, arr, backend="auto")
                os._exit(int(arr.array[0] != -1))
            print(os.waitpid(child, 0)[1], arr.array[0])
        """
    )
    assert done.stdout == "0 -1.0\n"


def test_its_workers_can_be_killed_and_what_follows_is_refused():
    with sc.Pool(2, backend="auto") as pool:
        sleeping = pool.submit(time.sleep, 60)
        assert pool.pids
        pool.kill_workers()
        with pytest.raises((WorkerLostError, CancelledError)):
            sleeping.result()
        with pytest.raises(ClosedError):
            pool.submit(time.sleep, 0)
    with sc.Pool(2, backend="auto") as pool:
        pool.terminate_workers()
        with pytest.raises(ClosedError):
            pool.ready()


@pytest.mark.parametrize("check", testing.CHECKS[::3], ids=lambda check: check.__name__)
def test_conformance(check, pool, in_turn):
    """Of the suite that each backend passes a third, with calls that go to each in turn."""
    check(pool, {"storage": "shm"})

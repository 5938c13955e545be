"""`progress=` tells how far a call is, in order and to its end, and changes nothing else."""

from __future__ import annotations

import io
import itertools
import sys
import threading
import types

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute import progress as module
from shmcompute.errors import KernelTimeoutError
from shmcompute.progress import Meter, counted


@nb.njit
def logistic(x, steps):
    for i in range(x.size):
        value = x[i]
        for _ in range(steps):
            value = 3.9 * value * (1.0 - value)
        x[i] = value


def square(x):
    x *= x


@nb.njit
def relax(new, old):
    for i in range(new.size):
        new[i] = 0.5 * (old[i] + old[i + 2])


@nb.njit
def total(x):
    return x.sum()


class Told:
    """A callable that remembers what it is told."""

    def __init__(self):
        self.all = []
        self.threads = set()

    def __call__(self, done, total):
        self.all.append((done, total))
        self.threads.add(threading.current_thread())

    def check(self, total):
        """From 0 to the end, each more than the last, by the caller."""
        dones = [done for done, _ in self.all]
        assert self.all[0] == (0, total)
        assert self.all[-1] == (total, total)
        assert dones == sorted(set(dones))
        assert {one for _, one in self.all} == {total}
        assert self.threads == {threading.current_thread()}


class Refused(Exception):
    pass


def refuse(done, total):
    if done:
        raise Refused(done)


def numbers(size=1000):
    return np.linspace(0.01, 0.99, size)


@pytest.fixture
def arr():
    with sc.SharedArray(numbers()) as array:
        yield array


class TestCalls:
    @pytest.mark.parametrize("kernel", [(square,), (logistic, 40), (np.negative,)])
    @pytest.mark.parametrize("schedule", ["static", "dynamic", "guided"])
    def test_is_told_in_order_and_to_the_end(self, kernel, schedule, any_pool, arr):
        """On every backend each number is told once, and the result is what it is without."""
        function, *args = kernel
        told = Told()
        sc.parallel_apply(function, arr, *args, schedule=schedule, pool=any_pool, progress=told)
        told.check(told.all[0][1])
        expected = numbers()
        function(expected, *args, *([expected] if isinstance(function, np.ufunc) else []))
        assert (arr.array == expected).all()

    def test_counts_chunks(self, any_pool, arr):
        """The total is the number of chunks, of a `chunksize` where there is one."""
        told = Told()
        sc.parallel_apply(square, arr, chunksize=30, pool=any_pool, progress=told)
        told.check(34)

    def test_without_a_chunksize_chunks_are_finer(self, any_pool, arr):
        """So that something is to be seen between nothing and all."""
        told = Told()
        sc.parallel_apply(square, arr, pool=any_pool, progress=told)
        told.check(64 * any_pool.workers)

    def test_never_cuts_below_one_element(self, pools):
        told = Told()
        with sc.SharedArray([2.0, 3.0]) as few:
            sc.parallel_apply(square, few, pool=pools["serial"], progress=told)
            assert few.array.tolist() == [4.0, 9.0]
        told.check(2)

    def test_who_is_told_of_chunks_gets_the_same(self, any_pool, arr):
        """With `chunk` or `per_chunk` among the arguments there are as many chunks as without."""

        def sums(x, number, out):
            out[...] = number

        for progress in (None, Told()):
            args = arr, sc.chunk, sc.per_chunk(())
            with sc.parallel_apply(sums, *args, pool=any_pool, progress=progress) as rows:
                assert rows.shape == (any_pool.workers,)

    def test_whichever_backend_is_chosen_tells(self, arr):
        """With `backend="auto"`, of calls, plans, reductions and sweeps."""
        with sc.Pool(2, backend="auto") as pool:
            for _ in range(6):
                told = Told()
                sc.parallel_apply(square, arr, chunksize=100, pool=pool, progress=told)
                told.check(10)
            told = Told()
            sc.plan(square, arr, chunksize=100, pool=pool, progress=told)()
            told.check(10)
            told = Told()
            sc.parallel_iterate(square, arr, times=3, pool=pool, progress=told)
            told.check(3)
            told = Told()
            args = total, sc.read(arr)
            sc.parallel_reduce(*args, combine=np.add, chunksize=10, pool=pool, progress=told)
            told.check(100)

    def test_a_chain_is_one_work(self, any_pool, arr):
        told = Told()
        sc.parallel_apply([square, (logistic, arr, 3)], arr, pool=any_pool, progress=told)
        told.check(told.all[0][1])
        expected = numbers() ** 2
        logistic(expected, 3)
        assert (arr.array == expected).all()

    @pytest.mark.parametrize("kernel", [relax, relax.py_func])
    @pytest.mark.parametrize("debug", [False, True])
    def test_a_chain_that_sees_neighbours_is_one_work(self, kernel, debug, any_pool):
        """Its total is the chunks of all links, whether they go skewed or one after another."""
        start, made = numbers(), []
        for progress in (None, Told()):
            with sc.SharedArray(start) as x, sc.SharedArray(start) as y:
                links = [(kernel, y[1:-1], sc.halo(x, 1)), (kernel, x[1:-1], sc.halo(y, 1))]
                how = {"pool": any_pool, "debug": debug, "progress": progress}
                sc.parallel_apply(links, chunksize=100, **how)
                made.append(x.array.copy())
        progress.check(20)
        assert (made[0] == made[1]).all()

    def test_a_plan_tells_each_time(self, any_pool, arr):
        told = Told()
        step = sc.plan(square, arr, chunksize=100, pool=any_pool, progress=told)
        step()
        step()
        half = len(told.all) // 2
        assert told.all[:1] == [(0, 10)]
        assert told.all.count((10, 10)) == told.all.count((0, 10)) == 2
        assert half
        assert (arr.array == (numbers() ** 2) ** 2).all()

    def test_a_range_is_told_too(self, any_pool):
        """`parallel_for` tells, of other ranges of one plan as well."""
        with sc.SharedArray.zeros(300) as table:
            for stop in (300, 200, 100, 0):
                told = Told()
                sc.parallel_for(_fill, 0, stop, sc.shared(table), pool=any_pool, progress=told)
                told.check(min(stop, 64 * any_pool.workers))
            assert (table.array[:100] == 3).all()
            assert (table.array[200:] == 1).all()

    def test_debugging_tells_too(self, any_pool, arr):
        told = Told()
        sc.parallel_apply(square, arr, debug=True, chunksize=100, pool=any_pool, progress=told)
        told.check(10)

    def test_retries_count_on(self, arr, tmp_path):
        """What was done before a worker died is done: the number does not fall."""
        told, flag = Told(), tmp_path / "died"
        with sc.Pool(2) as pool:
            args = _die_once, arr, str(flag)
            sc.parallel_apply(*args, chunksize=50, retries=2, pool=pool, progress=told)
        assert flag.exists()
        told.check(20)
        assert (arr.array == numbers() * 2).all()

    def test_reductions_tell_and_give_the_same_bits(self, any_pool):
        data = np.random.default_rng(1).standard_normal(200_000)
        with sc.SharedArray(data) as values:
            args = total, sc.read(values)
            plain = sc.parallel_reduce(*args, combine=np.add, pool=any_pool)
            for kernel in (total, np.sum):
                told = Told()
                seen = sc.parallel_reduce(
                    kernel, sc.read(values), combine=np.add, pool=any_pool, progress=told
                )
                told.check(told.all[0][1])
                assert seen == plain or kernel is np.sum

    def test_a_reduction_of_one_chunk(self, any_pool):
        for _ in range(2):  # the second is known
            told = Told()
            with sc.SharedArray([1.0, 2.0]) as two:
                args = total, sc.read(two)
                assert sc.parallel_reduce(*args, combine=np.add, pool=any_pool, progress=told) == 3
            told.check(1)

    @pytest.mark.parametrize("schedule", ["static", "dynamic"])
    def test_sweeps_are_counted(self, schedule, any_pool):
        start = numbers()
        results = []
        for progress in (None, Told()):
            with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
                last = sc.parallel_iterate(
                    relax,
                    new[1:-1],
                    sc.halo(old, 1),
                    times=40,
                    swap=(old, new),
                    schedule=schedule,
                    pool=any_pool,
                    progress=progress,
                )
                results.append(last.array.copy())
        progress.check(40)
        assert (results[0] == results[1]).all()

    def test_sweeps_that_end_early_tell_how_many(self, any_pool, arr):
        """Where `until` ends them the last number is that of the sweeps that were run."""
        told = Told()

        def halve(x):
            x /= 2
            return float(x.max())

        sc.parallel_iterate(
            halve, arr, times=50, until=lambda most: most < 0.1, pool=any_pool, progress=told
        )
        assert told.all == [(sweep, 50) for sweep in range(5)]


def _fill(first, last, table):
    table[first:last] += 1


def _die_once(x, flag):
    import os
    from pathlib import Path

    x *= 2
    if not Path(flag).exists():
        Path(flag).touch()
        os._exit(1)


def _wait(x):
    import signal

    signal.pause()


class TestErrors:
    def test_what_it_raises_ends_the_call(self, any_pool, arr):
        """The error comes out; then nobody writes, and the pool works on."""
        with pytest.raises(Refused):
            sc.parallel_apply(logistic, arr, 3000, chunksize=10, pool=any_pool, progress=refuse)
        after = arr.array.copy()
        once = numbers()
        logistic(once, 3000)
        done = after == once
        assert (done | (after == numbers())).all()  # each chunk whole, or not begun
        assert (arr.array == after).all()
        sc.parallel_apply(np.copyto, arr, 1.0, pool=any_pool)
        assert (arr.array == 1).all()

    def test_a_kernels_error_is_the_one_raised(self, any_pool, arr):
        def fails(x):
            raise ZeroDivisionError

        told = Told()
        with pytest.raises(ZeroDivisionError):
            sc.parallel_apply(fails, arr, pool=any_pool, progress=told)
        assert told.all[0][0] == 0
        assert all(done < total for done, total in told.all)

    def test_a_timeout_stays_one(self, arr):
        told = Told()
        with sc.Pool(2) as pool, pytest.raises(KernelTimeoutError):
            sc.parallel_apply(_wait, arr, timeout=0.3, pool=pool.ready(), progress=told)
        assert told.all == [(0, 128)]

    def test_it_may_call_itself(self, any_pool, arr):
        """A callable that makes a call of its own, with the same pool, does not wait for itself."""
        with sc.SharedArray.zeros(4) as other:

            def count(done, total):
                sc.parallel_apply(np.add, other, 1.0, pool=any_pool)

            sc.parallel_apply(square, arr, chunksize=500, pool=any_pool, progress=count)
            assert other.array.min() == other.array.max() >= 2

    @pytest.mark.parametrize("wrong", [1, 0, 2.5, ["a"], b"x"])
    @pytest.mark.parametrize("front", ["apply", "plan", "for", "reduce", "iterate", "map", "imap"])
    def test_what_is_no_progress_is_refused(self, wrong, front, pools, arr):
        """Before anything runs, by an error that says what is expected."""
        pool = pools["serial"]
        calls = {
            "apply": lambda **how: sc.parallel_apply(square, arr, pool=pool, **how),
            "plan": lambda **how: sc.plan(square, arr, pool=pool, **how),
            "for": lambda **how: sc.parallel_for(print, 0, 1, pool=pool, **how),
            "reduce": lambda **how: sc.parallel_reduce(
                total, sc.read(arr), combine=np.add, pool=pool, **how
            ),
            "iterate": lambda **how: sc.parallel_iterate(square, arr, times=1, pool=pool, **how),
            "map": lambda **how: pool.map(print, [1], **how),
            "imap": lambda **how: pool.imap(print, [1], **how),
        }
        with pytest.raises(TypeError, match=r"progress: expected True, a description.*, got "):
            calls[front](progress=wrong)
        assert (arr.array == numbers()).all()

    def test_false_and_none_ask_for_nothing(self, arr, capsys):
        for progress in (False, None):
            sc.parallel_apply(square, arr, backend="serial", progress=progress)
            list(sc.Pool(1, backend="serial").map(abs, [1], progress=progress))
        assert capsys.readouterr() == ("", "")


MAPS = ["map", "starmap", "imap", "imap_unordered"]


def _maps(pool, name, items, **options):
    wrapped = [(item,) for item in items] if name == "starmap" else items
    return list(getattr(pool, name)(abs, wrapped, **options))


class TestMaps:
    @pytest.mark.parametrize("name", MAPS)
    @pytest.mark.parametrize("chunksize", [1, 7])
    def test_tasks_are_counted(self, name, chunksize, any_pool):
        told = Told()
        found = _maps(any_pool, name, range(-40, 0), chunksize=chunksize, progress=told)
        assert sorted(found) == list(range(1, 41))
        told.check(40)

    @pytest.mark.parametrize("name", MAPS)
    def test_what_it_raises_comes_out(self, name, any_pool):
        with pytest.raises(Refused):
            _maps(any_pool, name, range(100), progress=refuse)
        assert list(any_pool.map(abs, [-1])) == [1]

    @pytest.mark.parametrize("name", ["map", "imap", "imap_unordered"])
    def test_an_unknown_length_is_none(self, name, pools):
        told = Told()
        _maps(pools["threads"], name, iter(range(9)), progress=told)
        assert told.all[0] == (0, None)
        assert told.all[-1] == (9, None)

    def test_the_shortest_known_length_counts(self, pools):
        told = Told()
        args = [1, 2, 3], itertools.repeat(2), range(5)
        assert list(pools["threads"].map(max, *args, progress=told)) == [2, 2, 3]
        told.check(3)

    def test_a_task_that_fails_is_done(self, pools):
        """It counts, and its error is raised in its place."""
        told = Told()
        results = pools["threads"].imap(lambda n: 1 // n, [1, 0, 1], progress=told)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        assert list(results) == [1]
        told.check(3)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is set."""
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(module, "monotonic", lambda: now.seconds)
    return now


class TestLines:
    def test_a_line_comes_now_and_then(self, clock, capsys):
        """Of ten thousand steps in as many seconds, with a last one at the end."""
        with Meter(True, 10_000, "chunk", "scale") as meter:
            for second in range(1, 10_001):
                clock.seconds = second
                meter(second)
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert out == ""
        assert 150 < len(lines) < 200
        assert lines[0] == "scale: 2/10000 chunks, 0 %, 2 s, 9998 s left, 1 chunks/s"
        assert lines[-1] == "scale: 10000/10000 chunks, 100 %, 10000 s, 1 chunks/s"

    def test_what_is_over_soon_says_nothing(self, clock, capsys):
        """A loop of quick calls fills no log."""
        for _ in range(100):
            with Meter(True, 2, "chunk", "scale") as meter:
                clock.seconds += 0.1
                meter(2)
        assert capsys.readouterr().err == ""

    def test_a_description_and_an_unknown_total(self, clock, capsys):
        with Meter("blurring", None, "task", "f") as meter:
            clock.seconds = 4
            meter(8)
        assert capsys.readouterr().err == "blurring: 8 tasks, 4 s, 2 tasks/s\n"

    def test_a_stderr_that_is_gone_is_no_trouble(self, clock, monkeypatch):
        for gone in (None, io.StringIO()):
            if gone is not None:
                gone.close()
                monkeypatch.setattr(module, "_in_notebook", lambda: True)
                monkeypatch.setitem(sys.modules, "tqdm.auto", None)
            monkeypatch.setattr(sys, "stderr", gone)
            with Meter(True, 1, "chunk", "f") as meter:
                clock.seconds += 5
                meter(1)

    def test_without_tqdm_a_terminal_gets_lines(self, clock, monkeypatch):
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        monkeypatch.setattr(sys, "stderr", Terminal())
        with Meter(True, 2, "chunk", "f") as meter:
            clock.seconds = 3
            meter(1)
        assert sys.stderr.getvalue() == "f: 1/2 chunks, 50 %, 3 s, 3 s left, 0.333 chunks/s\n"

    def test_a_call_whose_stderr_is_a_pipe(self, clock, monkeypatch, capsys, arr):
        clock.seconds = 0

        def slow(x):
            clock.seconds += 3

        sc.parallel_apply(slow, arr, chunksize=500, backend="serial", progress="slowly")
        assert capsys.readouterr().err.splitlines() == [
            "slowly: 1/2 chunks, 50 %, 3 s, 3 s left, 0.333 chunks/s",
            "slowly: 2/2 chunks, 100 %, 6 s, 0.333 chunks/s",
        ]


class TestBars:
    def test_a_terminal_gets_a_bar(self, monkeypatch):
        pytest.importorskip("tqdm")
        monkeypatch.setattr(sys, "stderr", Terminal())
        monkeypatch.setattr(module, "SOON", 0)
        with Meter("scaling", 4, "chunk", "scale") as meter:
            meter(1)
            meter(4)
        shown = sys.stderr.getvalue()
        assert "scaling: 100%" in shown
        assert "4/4" in shown
        assert "chunk/s" in shown or "s/chunk" in shown

    def test_a_notebook_gets_one_too(self, monkeypatch):
        """There stderr is no terminal, and tqdm draws in the cell."""
        shell = types.SimpleNamespace(kernel=object())
        python = types.SimpleNamespace(get_ipython=lambda: shell)
        monkeypatch.setitem(sys.modules, "IPython", python)
        made = []

        class Bar:
            n = 0

            def __init__(self, **options):
                made.append(options)

            def update(self, count):
                self.n += count

            def close(self):
                made.append(self.n)

        monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Bar))
        with Meter(True, 3, "sweep", "relax") as meter:
            meter(2)
        assert made[0]["desc"] == "relax"
        assert (made[0]["total"], made[0]["unit"]) == (3, "sweep")
        assert made[1] == 2

    def test_a_terminal_of_ipython_is_no_notebook(self, monkeypatch):
        python = types.SimpleNamespace(get_ipython=lambda: types.SimpleNamespace())
        monkeypatch.setitem(sys.modules, "IPython", python)
        assert not module._in_notebook()

    def test_no_thread_stays(self, monkeypatch):
        """tqdm's bars have a thread that looks after them, unless told how often to draw."""
        pytest.importorskip("tqdm")
        monkeypatch.setattr(sys, "stderr", Terminal())
        before = set(threading.enumerate())
        with Meter(True, 4, "chunk", "scale") as meter:
            meter(4)
        assert set(threading.enumerate()) == before


def test_counted_yields_what_it_is_given(clock, capsys):
    assert list(counted("abc", "letter", "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""

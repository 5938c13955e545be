"""Pools as executors: tasks, futures, maps, and what becomes of them."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import gc
import itertools
import multiprocessing
import os
import pickle
import select
import signal
import sys
import threading
import time
import warnings
from concurrent import futures
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernels import affine, run

import shmcompute as sc
from shmcompute import config, storage
from shmcompute.backends.processes.protocol import Pipe
from shmcompute.errors import (
    ClosedError,
    ForkedPoolError,
    KernelSerializationError,
    RemoteKernelError,
    SegmentNotFoundError,
    ShmComputeError,
    WorkerLostError,
)


@pytest.fixture(params=["forkserver", "fork", "poll"])
def own_pool(request, monkeypatch):
    """A process pool that a test may harm."""
    method = "forkserver" if request.param == "poll" else request.param
    if request.param == "poll":
        monkeypatch.setenv("SHMCOMPUTE_WAIT", "poll")
    with sc.Pool(2, backend="processes", start_method=method) as pool:
        yield pool.ready()


class Latch:
    """What a task waits for, in whatever process: a SharedArray that others see change."""

    def __init__(self):
        self.array = sc.SharedArray.zeros(2)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.array.close()

    def wait_here(self, number=0):
        """Return when a task has set it."""
        while self.array[number] == 0:
            time.sleep(0.001)

    def open(self):
        self.array[1] = 1


def _waits(array, result=None):
    array[0] = 1
    while array[1] == 0:
        time.sleep(0.001)
    return result


def _kill(pid):
    """Return when it is dead."""
    victim = os.pidfd_open(pid)
    signal.pidfd_send_signal(victim, signal.SIGKILL)
    select.select([victim], [], [])
    os.close(victim)


# --- Futures


def test_a_task_is_a_call_with_a_future(any_pool):
    assert any_pool.submit(pow, 2, 5).result() == 32
    assert any_pool.submit(sorted, [2, 3, 1], reverse=True).result() == [3, 2, 1]
    assert any_pool.submit(lambda: [n * n for n in range(3)]).result() == [0, 1, 4]
    assert isinstance(any_pool, futures.Executor)


def test_workers_do_it(process_pool):
    pids = set(process_pool.map(lambda _: os.getpid(), range(20)))
    assert pids <= set(process_pool.pids)


def test_what_a_task_raises_arrives_with_the_traceback_of_the_worker(any_pool):
    def fails():
        raise KeyError("mine")  # here

    future = any_pool.submit(fails)
    with pytest.raises(KeyError, match="mine"):
        future.result()
    error = future.exception()
    shown = str(error.__cause__) if any_pool.pids else error.__traceback__
    assert not any_pool.pids or 'raise KeyError("mine")  # here' in shown
    assert any_pool.submit(int).result() == 0


def test_sys_exit_in_a_task_is_the_tasks_own(any_pool):
    future = any_pool.submit(sys.exit, 3)
    with pytest.raises(SystemExit):
        future.result()
    assert any_pool.submit(int).result() == 0


@dataclasses.dataclass(frozen=True, slots=True)
class Refused(Exception):
    """Takes no attributes, so neither a note nor a cause."""

    code: int


class Turned(Exception):
    """Comes back as no exception."""

    def __reduce__(self):
        return _turned, (os.getpid(),)


def _turned(pid):
    return Turned() if pid == os.getpid() else 3


class Quits(Exception):
    """Coming back, it ends the program."""

    def __reduce__(self):
        return _quits, (os.getpid(),)


def _quits(pid):
    return Quits() if pid == os.getpid() else sys.exit(3)


class Carries(Exception):
    """Brings an array of the worker's, which is gone when it arrives."""

    def __init__(self, told):
        super().__init__(told, sc.SharedArray(np.arange(3.0)))


def _raises(kind):
    raise kind(7)


@pytest.mark.parametrize("kind", [Refused, Turned, Quits, Carries])
def test_an_exception_that_travels_badly_is_told_and_is_nobody_elses(process_pool, kind):
    """With its type and text, wherever it refuses."""
    with Latch() as gate:
        innocent = process_pool.submit(_waits, gate.array, 1)
        gate.wait_here()
        future = process_pool.submit(_raises, kind)
        waiting = [process_pool.submit(abs, -n) for n in range(3)]
        error = future.exception(60)
        assert isinstance(error, RemoteKernelError)
        assert kind.__name__ in str(error)
        assert "_raises" in str(error.__cause__)
        gate.open()
        assert innocent.result(60) == 1
        assert [each.result(60) for each in waiting] == [0, 1, 2]


@pytest.mark.parametrize("name", ["threads", "serial", "forkserver", "poll"])
def test_a_kernels_exception_that_takes_no_attributes_is_told(pools, name):
    with sc.SharedArray(np.zeros(2)) as arr, pytest.raises((Refused, RemoteKernelError)) as caught:
        sc.parallel_apply(_refuses, arr, pool=pools[name])
    assert "Refused" in repr(caught.value)


def _refuses(x):
    raise Refused(7)


def test_a_task_may_start_processes(process_pool):
    """Of its own, as in a ProcessPoolExecutor; a pool of its own is serial."""
    assert process_pool.submit(_starts_processes).result(60) == (0, "serial", True)


def _starts_processes():
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    with sc.Pool(2, backend="processes", start_method="fork") as pool:
        return process.exitcode, pool.backend, pool.submit(os.getpid).result() == os.getpid()


def test_what_a_callback_raises_ends_no_other_task(process_pool):
    """Not even what ends a thread."""
    futures_ = [process_pool.submit(abs, -n) for n in range(300)]
    futures_[150].add_done_callback(lambda _: sys.exit(3))
    assert [future.result(60) for future in futures_] == list(range(300))


def test_a_future_that_somebody_else_has_set_ends_no_other_task(process_pool):
    with Latch() as gate:
        mine = process_pool.submit(_waits, gate.array)
        gate.wait_here()
        others = [process_pool.submit(abs, -n) for n in range(3)]
        mine.set_result("mine")
        gate.open()
        assert [future.result(60) for future in others] == [0, 1, 2]
        assert mine.result() == "mine"


def test_constants_of_code_travel_as_they_are(process_pool):
    """Those too that no compiler makes."""

    def told():
        return 1.5

    code = told.__code__
    constants = tuple(np.float64(1.5) if value == 1.5 else value for value in code.co_consts)
    told.__code__ = code.replace(co_consts=constants)
    assert type(process_pool.submit(told).result()) is np.float64


def test_a_map_in_a_forked_child_says_so(process_pool):
    results = process_pool.imap(abs, itertools.count())
    assert next(results) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12's, of fork beside threads
        child = os.fork()
    if child == 0:
        code = 1
        try:
            next(results)
        except ForkedPoolError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    results.close()


def test_a_daemonic_process_may_have_a_pool():
    """Such as a worker of multiprocessing's own pool."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12's, of fork beside threads
        pool = multiprocessing.get_context("fork").Pool(1)
    with pool:
        told = pool.apply_async(_makes_a_pool).get(60)
    pool.join()
    assert told == "it has workers"


def _makes_a_pool():
    try:
        with sc.Pool(1, backend="processes", start_method="fork") as pool:
            pool.ready()
    except WorkerLostError as error:
        return str(error)
    return "it has workers"


def test_what_runs_is_not_cancelled_and_what_waits_is(pools):
    with Latch() as gate:
        pool = pools["forkserver"]
        running = [pool.submit(_waits, gate.array, n) for n in range(2)]
        gate.wait_here()
        waiting = pool.submit(int)
        assert waiting.cancel()
        assert not running[0].cancel()
        gate.open()
        assert [future.result() for future in running] == [0, 1]
        assert waiting.cancelled()


def test_callbacks_run_and_may_go_on_with_the_pool(any_pool):
    """Also with a call, which a callback runs itself: the workers are the desk's just then."""
    done = threading.Event()
    found = []

    def callback(future):
        with sc.SharedArray(np.full(4, future.result())) as arr:
            sc.parallel_apply(affine, arr, 2.0, 1.0, pool=any_pool)
            found.append(arr.array.tolist())
        any_pool.submit(int).add_done_callback(lambda _: done.set())

    any_pool.submit(float, 3).add_done_callback(callback)
    assert done.wait(60)
    assert found == [[7.0] * 4]


def test_libraries_that_take_an_executor_work_unchanged(any_pool):
    async def main():
        loop = asyncio.get_running_loop()
        calls = [loop.run_in_executor(any_pool, pow, 2, n) for n in range(5)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [1, 2, 4, 8, 16]
    some = {any_pool.submit(abs, -n): n for n in range(5)}
    assert {some[f]: f.result() for f in futures.as_completed(some)} == {n: n for n in range(5)}


def test_a_module_is_found_where_the_program_looks_now(pools, tmp_path, monkeypatch):
    """Also when `sys.path` changes while workers are at their tasks."""
    (tmp_path / "found_later.py").write_text("def twice(n):\n    return 2 * n\n")
    with Latch() as gate:
        pool = pools["forkserver"]
        running = pool.submit(_waits, gate.array)
        gate.wait_here()
        assert pool.submit(int).result() == 0
        monkeypatch.syspath_prepend(tmp_path)
        import found_later

        assert pool.submit(found_later.twice, 3).result() == 6
        gate.open()
        running.result()
    del sys.modules["found_later"]


# --- Maps


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.integers()), st.integers(1, 9), st.none() | st.integers(1, 9))
def test_map_keeps_the_order(pools, items, chunksize, buffersize):
    for name in ("forkserver", "threads", "serial"):
        found = pools[name].map(abs, items, chunksize=chunksize, buffersize=buffersize)
        assert list(found) == [abs(item) for item in items]


def test_map_takes_items_side_by_side_until_one_iterable_ends(any_pool):
    assert list(any_pool.map(pow, itertools.count(), [2, 3, 4])) == [0, 1, 16]
    assert list(any_pool.map(pow, range(5), range(5), chunksize=2)) == [1, 1, 4, 27, 256]
    assert list(any_pool.map(abs, [])) == []


def test_map_tells_what_an_item_raised_in_its_place(any_pool):
    found = any_pool.map(divmod, [1, 1, 1], [2, 0, 1])
    assert next(found) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_map_does_not_wait_longer_than_its_timeout(pools):
    with Latch() as gate:
        found = pools["threads"].map(_waits, [gate.array], timeout=0.05)
        with pytest.raises(TimeoutError):
            next(found)
        gate.open()


def test_starmap_is_a_list(any_pool):
    assert any_pool.starmap(pow, [(2, 3), (3, 2), (5, 1)]) == [8, 9, 5]
    assert any_pool.starmap(pow, ((n, 2) for n in range(50)), chunksize=7) == [
        n * n for n in range(50)
    ]


def _counted(consumed):
    for number in itertools.count():
        consumed.append(number)
        yield number


@pytest.mark.parametrize("chunksize", [1, 3])
@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
def test_imap_reads_a_few_chunks_a_worker_ahead(any_pool, kind, chunksize):
    """Two at first, and never more than 32."""
    consumed = []
    found = getattr(any_pool, kind)(abs, _counted(consumed), chunksize)
    assert len(consumed) == chunksize * 2 * any_pool.workers
    taken = list(itertools.islice(found, 500))
    assert len(set(taken)) == 500
    assert kind != "imap" or taken == list(range(500))
    assert len(consumed) <= 500 + chunksize * (32 * any_pool.workers + 1)
    found.close()


def test_imap_reads_no_further_ahead_of_what_takes_long(any_pool):
    consumed = []
    found = any_pool.imap(_takes_long, _counted(consumed))
    assert list(itertools.islice(found, 10)) == list(range(10))
    assert len(consumed) <= 10 + 2 * any_pool.workers
    found.close()


def _takes_long(number):
    time.sleep(0.01)  # as work would
    return number


def test_a_map_with_a_buffer_reads_no_further(any_pool):
    consumed = []
    found = any_pool.map(abs, _counted(consumed), buffersize=3)
    assert list(itertools.islice(found, 10)) == list(range(10))
    assert len(consumed) <= 10 + 3 + 1


@pytest.mark.parametrize("chunksize", [1, 2])
@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
@pytest.mark.parametrize("good", [0, 1, 5, 100])
def test_what_an_iterable_raises_comes_after_the_results(any_pool, kind, chunksize, good):
    """As with `multiprocessing.Pool`."""

    def items():
        yield from range(good)
        raise KeyError("no more")

    results, found = getattr(any_pool, kind)(abs, items(), chunksize), []
    with pytest.raises(KeyError, match="no more"):
        for result in results:  # noqa: PERF402  # what came before counts
            found.append(result)
    assert sorted(found) == list(range(good))
    assert list(results) == []


@pytest.mark.parametrize("kind", ["imap", "imap_unordered"])
def test_threads_may_share_the_results_of_a_map(any_pool, kind):
    """Each comes to one of them, and all of them come to an end."""
    results, found = getattr(any_pool, kind)(abs, range(200)), []
    threads = [threading.Thread(target=lambda: found.extend(results)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(found) == list(range(200))


@pytest.mark.parametrize("timeout", ["1", True])
def test_a_maps_timeout_is_a_time(pools, timeout):
    results = pools["threads"].imap(abs, [1])
    with pytest.raises(TypeError, match="timeout: expected"):
        results.next(timeout)
    with pytest.raises(TypeError, match="timeout: expected"):
        pools["threads"].map(abs, [1], timeout=timeout)
    assert list(results) == [1]


def test_imap_goes_on_after_an_item_that_failed(any_pool):
    found = any_pool.imap(lambda n: 6 // n, [3, 0, 2])
    assert next(found) == 2
    with pytest.raises(ZeroDivisionError):
        next(found)
    assert list(found) == [3]


@pytest.mark.parametrize("kind", ["map", "imap", "imap_unordered"])
def test_a_task_that_raises_stop_iteration_ends_no_map(any_pool, kind):
    results = getattr(any_pool, kind)(next, map(iter, ([1], [], [2])))
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(results)


class Counter:
    """A function with state."""

    def __init__(self):
        self.count = 0

    def __call__(self, step):
        self.count += step
        return self.count


def test_tasks_find_a_function_as_it_was_sent(process_pool):
    """As with the standard library; not as another task left it that the same worker had."""
    counter = Counter()
    assert list(process_pool.map(counter, [1] * 8)) == [1] * 8
    assert [process_pool.submit(counter, 1).result() for _ in range(4)] == [1] * 4
    assert list(process_pool.imap(counter.__call__, [1] * 8)) == [1] * 8


def test_imap_can_be_asked_again_when_a_result_was_late(pools):
    with Latch() as gate:
        found = pools["threads"].imap(_waits, [gate.array])
        with pytest.raises(TimeoutError, match="ask again"):
            found.next(0.01)
        gate.open()
        assert found.next(60) is None
        with pytest.raises(StopIteration):
            found.next()


def test_imap_unordered_tells_what_is_done_first(pools):
    for name in ("forkserver", "threads"):
        with Latch() as gate:
            some = [(gate.array, True), (gate.array, False), (gate.array, False)]
            found = pools[name].imap_unordered(_waits_if, some)
            assert [next(found), next(found)] == [False, False]
            gate.open()
            assert list(found) == [True]
    numbers = pools["forkserver"].imap_unordered(abs, range(100), 7)
    assert sorted(numbers) == list(range(100))


def _waits_if(pair):
    return _waits(pair[0], True) if pair[1] else False


@pytest.mark.parametrize("name", ["map", "starmap", "imap", "imap_unordered"])
def test_a_bad_chunksize_is_named(pools, name):
    for bad, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="chunksize"):
            getattr(pools["serial"], name)(abs, [(1,)], chunksize=bad)


# --- Arrays


def test_views_of_shared_arrays_travel_without_their_bytes(process_pool, monkeypatch):
    sent = []

    real = Pipe.send

    def counted(pipe, message, deadline=None):
        sent.append(len(pickle.dumps(message)))
        real(pipe, message, deadline)

    monkeypatch.setattr(Pipe, "send", counted)
    with sc.SharedArray(np.zeros((8, 1 << 17))) as arr:
        assert list(process_pool.map(_fill, arr.array, range(8))) == list(range(8))
        assert arr.array.mean(axis=1).tolist() == list(range(8))
        some = list(process_pool.map(_fill, [row[::2] for row in arr], range(8), chunksize=3))
        assert some == list(range(8))
    assert sum(sent) < 20_000  # of 8 MiB


def _fill(row, value):
    row[:] = value
    return value


def test_views_among_results_are_shared_too(process_pool):
    with sc.SharedArray(np.arange(10.0)) as arr:
        half = process_pool.submit(lambda: arr.array[5:]).result()
        half[0] = -1
        assert arr[5] == -1


def _make(kind, name, value):
    keywords = {"storage": kind, **({"name": name} if name else {})}
    return sc.SharedArray.full(1000, value, **keywords)


def test_an_array_that_a_worker_made_is_the_callers(process_pool, any_storage):
    kind = any_storage["storage"]
    path = any_storage["name"] if kind == "file" else None
    made = process_pool.submit(_make, kind, path, 3.0).result()
    assert made.owner
    assert made.array.sum() == 3000
    sc.parallel_apply(affine, made, 2.0, 1.0, pool=process_pool)
    assert process_pool.submit(np.sum, made).result() == 7000
    made.close()
    if kind == "shm":
        with pytest.raises(SegmentNotFoundError):
            sc.SharedArray.attach(made.name)
    if kind == "file":
        assert np.load(made.name)[0] == 7
        made.unlink()
        assert not os.path.exists(made.name)


@pytest.mark.long
def test_it_outlives_the_worker(own_pool, any_storage):
    kind = any_storage["storage"]
    path = any_storage["name"] if kind == "file" else None
    made = own_pool.submit(_make, kind, path, 3.0).result()
    for pid in own_pool.pids:
        _kill(pid)
    storage.reaper.reap()
    sc.parallel_apply(affine, made, 2.0, 1.0, pool=own_pool)
    assert made.array.sum() == 7000
    made.unlink()
    made.close()


def test_small_arrays_that_workers_made_do_not_share_memory(process_pool):
    """What `multiprocessing` gives back in a worker, the next array there must not get."""
    made = [process_pool.submit(_make, "array", None, n).result() for n in range(10)]
    assert [arr[0] for arr in made] == list(range(10))
    for arr in made:
        arr.close()


def test_it_goes_when_nobody_wants_it(process_pool):
    future = process_pool.submit(_make, "shm", None, 1.0)
    name = future.result().name
    del future
    gc.collect()
    with pytest.raises(SegmentNotFoundError):
        sc.SharedArray.attach(name)


def test_views_of_what_a_worker_made_keep_it(process_pool):
    def views():
        made = sc.SharedArray(np.arange(10.0), storage="shm")
        return {"even": made[::2], "name": made.name}

    found = process_pool.submit(views).result()
    assert found["even"].tolist() == [0, 2, 4, 6, 8]
    assert sc.SharedArray.attach(found["name"]).size == 10
    name = found.pop("name")
    found.clear()
    gc.collect()
    with pytest.raises(SegmentNotFoundError):
        sc.SharedArray.attach(name)


def test_a_closed_array_is_named_where_it_is_used(process_pool):
    arr = sc.SharedArray(np.ones(3))
    arr.close()
    with pytest.raises(ClosedError, match="closed"):
        process_pool.submit(np.sum, arr).result()

    def closes():
        with sc.SharedArray(np.ones(3)) as made:
            return made

    with pytest.raises(ClosedError, match="closed"):
        process_pool.submit(closes).result()


def _maps(pid, name):
    return name in Path(f"/proc/{pid}/maps").read_text()


def test_workers_keep_what_they_attached_until_it_is_closed(process_pool):
    arr = sc.SharedArray(np.ones(1000), storage="shm")
    assert process_pool.starmap(np.sum, [(arr,)] * 20, chunksize=1) == [1000] * 20
    process_pool.ready()  # the desk has let go
    assert any(_maps(pid, arr.name) for pid in process_pool.pids)
    arr.close()
    assert not any(_maps(pid, arr.name) for pid in process_pool.pids)


@pytest.mark.long
def test_they_let_go_of_it_while_others_work(own_pool):
    with Latch() as gate:
        running = own_pool.submit(_waits, gate.array)
        gate.wait_here()
        arr = sc.SharedArray(np.ones(1000), storage="shm")
        name = arr.name
        assert own_pool.submit(np.sum, arr).result() == 1000
        arr.close()
        own_pool.submit(int).result()
        own_pool.submit(int).result()
        assert not any(_maps(pid, name) for pid in own_pool.pids)
        gate.open()
        running.result()


# --- What goes wrong


class Unpicklable:
    def __reduce__(self):
        raise ValueError("not me")


class Unloadable:
    def __reduce__(self):
        return int, ("not a number",)


def test_what_does_not_pickle_is_named_and_harms_no_other_task(process_pool):
    before = process_pool.pids
    good = [process_pool.submit(pow, 2, n) for n in range(10)]
    bad = {
        process_pool.submit(abs, Unpicklable()): "argument of abs.*ValueError: not me",
        process_pool.submit(threading.Lock().acquire): "function lock.acquire.*lock",
        process_pool.submit(Unpicklable): "Unpicklable ran, but its result.*not me",
        process_pool.submit(threading.Lock): "result, lock, can't be sent back",
        process_pool.submit(abs, Unloadable()): "can't unpack this task.*not a number",
        process_pool.submit(Unloadable): "result of Unloadable does not unpickle here",
    }
    for future, said in bad.items():
        with pytest.raises(KernelSerializationError, match=said) as caught:
            future.result()
        assert isinstance(caught.value, pickle.PicklingError)
    assert [future.result() for future in good] == [2**n for n in range(10)]
    assert process_pool.pids == before


@pytest.mark.long
def test_a_task_whose_worker_died_fails_alone(own_pool):
    with Latch() as gate:
        running = own_pool.submit(_waits, gate.array, "fine")
        gate.wait_here()
        victim = own_pool.submit(os.kill, 0, 0)  # the other worker takes it, and those after it
        victim.exception()
        waiting = [own_pool.submit(pow, 2, n) for n in range(5)]
        dead = own_pool.submit(_die, signal.SIGKILL)
        later = [own_pool.submit(pow, 2, n) for n in range(5)]
        with pytest.raises(WorkerLostError, match="SIGKILL.*while it ran _die") as caught:
            dead.result()
        assert caught.value.exitcode == -signal.SIGKILL
        assert isinstance(caught.value, futures.BrokenExecutor)
        assert [future.result() for future in waiting + later] == [1, 2, 4, 8, 16] * 2
        gate.open()
        assert running.result() == "fine"
    assert len(set(own_pool.pids)) == 2


def _die(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def test_of_many_tasks_only_those_of_the_dead_are_lost(own_pool):
    def task(number):
        if number % 97 == 5:
            os._exit(number % 7)
        return number

    some = [own_pool.submit(task, number) for number in range(600)]
    for number, future in enumerate(some):
        if number % 97 == 5:
            with pytest.raises(WorkerLostError) as caught:
                future.result()
            assert caught.value.exitcode == number % 7
        else:
            assert future.result() == number


@pytest.mark.parametrize("name", ["forkserver", "poll"])
def test_no_task_waits_behind_one_that_takes_long(pools, name):
    """Tiny tasks go several at once, and are taken back from a worker that turns out to be slow."""
    pool = pools[name]
    with Latch() as gate:
        assert list(pool.map(abs, range(500))) == list(range(500))
        some = [pool.submit(_waits_at, gate.array, number, 100) for number in range(300)]
        assert [future.result() for future in some[:100] + some[101:]] == [None] * 299
        assert not some[100].done()
        gate.open()
        some[100].result()


def _waits_at(array, number, where):
    return _waits(array) if number == where else None


def test_idle_workers_that_die_are_replaced(own_pool):
    first = own_pool.pids
    for pid in first:
        _kill(pid)
    assert list(own_pool.map(abs, range(10))) == list(range(10))
    assert not set(first) & set(own_pool.pids)


def test_workers_that_cannot_start_are_the_outcome_of_tasks(own_pool, monkeypatch):
    def fails(*_):
        raise WorkerLostError("no more")

    own_pool.submit(int).result()
    monkeypatch.setattr("shmcompute.backends.processes.worker_group.WorkerProcess", fails)
    for pid in own_pool.pids:
        _kill(pid)
    with pytest.raises(WorkerLostError):
        own_pool.submit(int).result()
    monkeypatch.undo()
    assert own_pool.submit(int).result() == 0


def test_a_fault_of_ours_does_not_leave_anybody_waiting(own_pool, monkeypatch):
    def fails(*_):
        raise MemoryError("mine")

    with monkeypatch.context() as patch:
        patch.setattr("shmcompute.backends.processes.dispatcher.Dispatcher._take_in", fails)
        some = [own_pool.submit(int) for _ in range(5)]
        assert {type(future.exception()) for future in some} <= {MemoryError}
    assert own_pool.submit(int).result() == 0


def test_a_pool_without_a_descriptor_left_says_so_and_goes_on_when_there_are_some(own_pool):
    own_pool.ready(60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.pipe", raising(OSError(errno.EMFILE, "Too many open files")))
        with pytest.raises(WorkerLostError, match="ulimit -n"):
            own_pool.submit(int)
    assert own_pool.submit(int).result() == 0


def raising(error):
    def fails(*_):
        raise error

    return fails


def test_a_forked_child_says_so(any_pool):
    if any_pool.backend == "serial":
        pytest.skip("a serial pool is at home anywhere")
    pid = os.fork()
    if pid == 0:
        try:
            any_pool.submit(int)
        except ForkedPoolError:
            any_pool.shutdown()
            os._exit(0)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_a_pool_does_not_travel(process_pool):
    with pytest.raises(KernelSerializationError, match="a Pool stays in its process"):
        process_pool.submit(id, process_pool).result()


# --- Nesting, and calls beside tasks


def test_a_task_may_call_parallel_apply_and_start_tasks(any_pool):
    """It runs them itself, where it would else wait for workers that wait for it."""

    def task(value):
        with sc.SharedArray(np.full(4, value)) as arr, sc.Pool(2, backend="threads") as pool:
            sc.parallel_apply(affine.py_func, arr, 2.0, 1.0)
            return pool.submit(np.sum, arr.array).result()

    assert list(any_pool.map(task, [1.0, 2.0, 3.0])) == [12, 20, 28]


def test_threads_that_wait_for_tasks_of_their_pool_do_not_hang(pools):
    pool = pools["threads"]
    assert list(pool.map(lambda n: pool.submit(abs, n).result(), range(20))) == list(range(20))


@pytest.mark.parametrize("name", ["forkserver", "fork", "poll", "caller"])
def test_calls_and_tasks_take_turns(pools, name):
    """Neither waits until the other has nothing to do."""
    pool = pools[name]
    enough = threading.Event()
    done = []

    def tasks():
        found = pool.imap(abs, itertools.count())
        for _ in range(50):
            done.append(next(found))
        enough.set()
        while not ended.is_set():
            next(found)
        found.close()

    ended = threading.Event()
    thread = threading.Thread(target=tasks)
    thread.start()
    calls = 0
    with sc.SharedArray(np.zeros(64)) as arr:
        while calls < 50 or not enough.is_set():
            sc.parallel_apply(affine, arr, 1.0, 1.0, pool=pool)
            calls += 1
        assert arr.array.tolist() == [calls] * 64
    ended.set()
    thread.join()
    assert done == list(range(50))


@pytest.mark.long
def test_a_call_waits_for_the_tasks_that_run_and_no_others(own_pool):
    with Latch() as gate, sc.SharedArray(np.zeros(4)) as arr:
        running = own_pool.submit(_waits, gate.array)
        gate.wait_here()
        call = threading.Thread(
            target=sc.parallel_apply, args=(affine, arr, 1.0, 1.0), kwargs={"pool": own_pool}
        )
        call.start()
        while not own_pool.running._fair_lock.wanted:
            time.sleep(0.001)
        waiting = [own_pool.submit(_look, arr.array) for _ in range(50)]
        gate.open()
        running.result()
        call.join()
        assert arr.array.tolist() == [1] * 4
        assert waiting[-1].result() == 4


def _look(array):
    return array.sum()


def test_a_call_that_waits_for_tasks_overruns_its_timeout(own_pool):
    with Latch() as gate, sc.SharedArray(np.zeros(4)) as arr:
        running = own_pool.submit(_waits, gate.array)
        gate.wait_here()
        with pytest.raises(sc.errors.KernelTimeoutError, match="nothing has run"):
            sc.parallel_apply(affine, arr, 1.0, 1.0, pool=own_pool, timeout=0.05)
        gate.open()
        running.result()


# --- The end


def _pool(name):
    backend = name if name in config.BACKENDS else "processes"
    return sc.Pool(2, backend=backend, start_method=name if backend == "processes" else None)


@pytest.mark.parametrize("name", ["forkserver", "fork", "threads", "serial"])
def test_leaving_a_pool_waits_for_its_tasks(name):
    with _pool(name) as pool:
        some = [pool.submit(time.sleep, 0.001) for _ in range(20)]
    assert all(future.done() for future in some)
    with pytest.raises(RuntimeError, match="closed"):
        pool.submit(int)
    with pytest.raises(ClosedError):
        pool.map(abs, [1])
    pool.shutdown()


@pytest.mark.long
@pytest.mark.parametrize("name", ["forkserver", "fork", "threads"])
def test_a_shutdown_that_does_not_wait_lets_tasks_end(name):
    with Latch() as gate:
        pool = _pool(name).ready()
        some = [pool.submit(_waits, gate.array, n) for n in range(5)]
        gate.wait_here()
        pool.shutdown(wait=False)
        with pytest.raises(RuntimeError):
            pool.submit(int)
        gate.open()
        assert [future.result() for future in some] == list(range(5))
        pool.shutdown()


@pytest.mark.long
@pytest.mark.parametrize("name", ["forkserver", "fork", "threads"])
def test_a_shutdown_may_cancel_what_was_not_begun(name):
    with Latch() as gate:
        pool = _pool(name).ready()
        some = [pool.submit(_waits, gate.array, n) for n in range(10)]
        gate.wait_here()
        pool.shutdown(wait=False, cancel_futures=True)
        gate.open()
        pool.shutdown()
        cancelled = [future.cancelled() for future in some]
        assert cancelled[:1] == [False]
        assert cancelled[2:] == [True] * 8
        assert all(future.done() for future in some)


@pytest.mark.parametrize("end", ["terminate_workers", "kill_workers"])
def test_workers_that_are_ended_end_now(own_pool, end):
    with Latch() as latch:
        running = [own_pool.submit(latch.wait_here) for _ in range(2)]
        assert own_pool.submit(abs, -1).cancel()
        waiting = [own_pool.submit(abs, -1) for _ in range(5)]
        while not all(task.running() for task in running):
            time.sleep(0.001)
        pids = own_pool.pids
        getattr(own_pool, end)()
        for task in running:
            assert isinstance(task.exception(60), WorkerLostError)
        assert all(task.cancelled() for task in waiting)
        with pytest.raises(ClosedError):
            own_pool.submit(abs, -1)
        own_pool.shutdown()
        assert not any(psutil.pid_exists(pid) for pid in pids)
        getattr(own_pool, end)()  # and it may be said again


def test_so_does_a_call_that_runs(own_pool):
    def sleep(x):
        x += 1
        time.sleep(600)

    with sc.SharedArray(np.zeros(4)) as arr, futures.ThreadPoolExecutor(1) as executor:
        call = executor.submit(sc.parallel_apply, sleep, arr, pool=own_pool, retries=5)
        while arr[0] == 0 and not call.done():
            time.sleep(0.001)
        own_pool.kill_workers()
        assert isinstance(call.exception(60), (WorkerLostError, ClosedError))


def test_where_workers_are_no_processes_there_is_nothing_to_end(pools):
    for name in ("threads", "serial"):
        with pytest.raises(NotImplementedError, match="shutdown"):
            pools[name].kill_workers()
        assert pools[name].submit(abs, -1).result() == 1


def test_a_pool_that_is_dropped_does_its_tasks_and_ends():
    pool = sc.Pool(2)
    pids = pool.ready().pids
    some = [pool.submit(pow, 2, n) for n in range(10)]
    del pool
    assert [future.result() for future in some] == [2**n for n in range(10)]
    del some
    for thread in threading.enumerate():
        if thread.name == "shmcompute-dispatcher":
            thread.join()
    gc.collect()
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_callback_may_close_the_pool(own_pool):
    own_pool.submit(int).add_done_callback(lambda _: own_pool.close())
    for thread in threading.enumerate():
        if thread.name == "shmcompute-dispatcher":
            thread.join()
    with pytest.raises(ClosedError):
        own_pool.submit(int)


@pytest.mark.long
@pytest.mark.parametrize("how", ["forkserver", "fork", "threads"])
def test_a_program_that_ends_does_its_tasks(how):
    done = run(
        """
        import sys, time
        import shmcompute as sc
        how = sys.argv[1]
        pool = sc.Pool(2, backend="threads") if how == "threads" else sc.Pool(2, start_method=how)
        def task(text):
            time.sleep(0.2)
            print(text, flush=True)
        for _ in range(4):
            pool.submit(task, "apple")
        """,
        how,
    )
    assert done.stdout.count("apple") == 4
    assert done.stderr == ""


@pytest.mark.long
@pytest.mark.parametrize("how", ["forkserver", "fork", "threads", "serial"])
def test_a_program_that_has_ended_takes_no_more_tasks(how):
    done = run(
        """
        import atexit, sys
        @atexit.register
        def late():
            try:
                pool.submit(int)
            except RuntimeError as error:
                print(error)
        import shmcompute as sc
        how = sys.argv[1]
        if how in ("threads", "serial"):
            pool = sc.Pool(2, backend=how)
        else:
            pool = sc.Pool(2, start_method=how)
        pool.submit(int).result()
        """,
        how,
        fresh="the program registers its exit before the import of shmcompute",
    )
    assert done.stdout == "cannot schedule new futures after interpreter shutdown\n"


@pytest.mark.long
def test_an_interrupt_while_one_waits_leaves_the_pool_usable():
    done = run(
        """
        import os, signal, threading, time
        import shmcompute as sc
        with sc.Pool(2) as pool, sc.SharedArray.zeros(1) as flag:
            def task():
                flag[0] = 1
                time.sleep(0.2)
                return "done"
            future = pool.submit(task)
            def interrupt():
                while not flag[0]:
                    time.sleep(0.001)
                os.kill(os.getpid(), signal.SIGINT)
            threading.Thread(target=interrupt).start()
            try:
                future.result()
            except KeyboardInterrupt:
                print("interrupted")
            print(future.result(), pool.submit(pow, 2, 3).result())
        """
    )
    assert done.stdout == "interrupted\ndone 8\n"


def test_a_context_names_the_start_method(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_START_METHOD", "spawn")
    with sc.Pool(1, start_method=multiprocessing.get_context("fork")) as pool:
        assert pool.running.start_method == "fork"
    with pytest.raises(ValueError, match="start method"):
        sc.Pool(1, start_method=3)


def test_a_pool_whose_one_worker_is_the_caller_runs_tasks_there():
    with sc.Pool(1, backend="processes", caller_runs=True) as pool:
        assert pool.submit(os.getpid).result() == os.getpid()


def test_errors_of_tasks_are_errors_of_ours():
    assert issubclass(ClosedError, RuntimeError)
    assert issubclass(WorkerLostError, (ShmComputeError, futures.BrokenExecutor))

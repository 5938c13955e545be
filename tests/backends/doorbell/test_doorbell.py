"""The doorbell: what is rung for is done once, and what is known of it is true."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
import warnings

import kernels
import numba as nb
import numpy as np
import psutil
import pytest
from faults.trial import RINGS, scaled
from hypothesis import given
from hypothesis import strategies as st
from methods import METHODS

import shmcompute as sc
from shmcompute import storage
from shmcompute.backends.doorbell import (
    NOTE,
    ControlMapping,
    DoorbellCaller,
    DoorbellWorker,
    control_block,
    no_bases,
)
from shmcompute.errors import KernelTimeoutError, WorkerLostError
from shmcompute.system import atomic_words

pytestmark = pytest.mark.skipif(not atomic_words.has_futex(), reason="no futex here")

BASES = no_bases()


@pytest.fixture
def block():
    return ControlMapping(2, fd=-1)


@given(
    st.lists(
        st.integers(-(2**63), 2**63 - 1) | st.floats() | st.booleans() | st.complex_numbers(),
        max_size=64,
    )
)
def test_numbers_arrive_as_they_were_told(values):
    block = ControlMapping(1, fd=-1)
    block.write_values(tuple(values))
    told = block.read_values([type(value) for value in values])
    assert [type(value) for value in told] == [type(value) for value in values]
    np.testing.assert_array_equal(told, values)


@pytest.mark.parametrize(
    ("first", "step", "expected"), [(0, 2, [0, 2, 4]), (1, 2, [1, 3]), (0, 0, [0, 1, 2, 3, 4])]
)
def test_a_seat_takes_its_share(block, first, step, expected):
    slot = block.slot(0)
    control_block.assign(slot, first, step)
    taken, number = [], control_block.NONE
    while (number := control_block.take(block.address, slot, number)) in range(5):
        taken.append(number)
    assert taken == expected


def test_chunks_of_a_seat_that_stopped_are_undone(block):
    """Static: what it had not counted. Dynamic: what it was writing, and what nobody took."""
    caller = DoorbellCaller(block, 0, BASES.ctypes.data)
    slot = block.slot(0)
    for step, undone in ((2, {2, 4, 6}), (0, {1, *range(2, 8)})):
        block.write(block.address + control_block.CURSOR, 0)
        block.write(block.address + control_block.STOP, 0)
        control_block.assign(slot, 0, step)
        second = control_block.take(
            block.address, slot, control_block.take(block.address, slot, control_block.NONE)
        )
        assert second == (2 if step else 1)
        assert caller.undone(8, [0], step) == undone
    block.write(slot + control_block.CURRENT, control_block.TAKING)
    assert caller.undone(8, [0], 0) == set(range(8))


def test_a_ring_wakes_a_sleeper_and_its_answer_wakes_the_caller(block):
    """Many times, asleep and awake on either side."""
    caller, worker = DoorbellCaller(block, 0, BASES.ctypes.data), DoorbellWorker(block, 0, 0)
    rounds = 2000

    def answer():
        for _ in range(rounds):
            assert worker.wait() == 7
            worker.answer()

    thread = threading.Thread(target=answer)
    thread.start()
    for number in range(rounds):
        caller.ring(7, 1, own=False, step=1)
        while not caller.finished():
            pass
        assert not caller.owes(0), number
    thread.join()


def test_who_sleeps_on_the_callers_core_is_woken_last(monkeypatch):
    """It may have that core at once, and the caller would come late to wake the others."""
    asleep = {0: 1, 1: 0, 2: None, 3: 1, 4: 2}  # where, by number
    words = {}
    for number, core in asleep.items():
        words[control_block.SLOT * number + control_block.SLEEPS] = core is not None
        words[control_block.SLOT * number + control_block.CORE] = core
    woken = []
    monkeypatch.setattr(control_block, "core", lambda: 1)
    monkeypatch.setattr(control_block, "load", words.__getitem__)
    monkeypatch.setattr(control_block, "wake", woken.append)
    control_block.wake_up.py_func(0, len(asleep))
    assert [(place - control_block.ASKED) // control_block.SLOT for place in woken] == [1, 4, 0, 3]


def test_a_note_is_answered_apart_from_runs(block):
    caller, worker = DoorbellCaller(block, 0, BASES.ctypes.data), DoorbellWorker(block, 0, 0)
    caller.noter(0)()
    assert caller.owes(0)
    assert worker.wait() == control_block.NOTE
    worker.answer()
    assert not caller.owes(0)
    assert caller.finished()


def test_the_caller_is_told_how_often_workers_compiled(block):
    caller = DoorbellCaller(block, 0, BASES.ctypes.data)
    for number, count in enumerate((3, 4)):
        DoorbellWorker(block, number, 0).note_compilations(count)
    assert caller.compilations() == 7


@pytest.mark.parametrize("step", [0, 2])
def test_who_has_not_begun_is_late(block, step):
    caller, slot = DoorbellCaller(block, 0, BASES.ctypes.data), block.slot(0)
    caller.ring(7, 1, own=False, step=step)
    assert (caller.late(0), caller.late(1)) == (True, False)
    number = control_block.take(block.address, slot, control_block.NONE)
    assert not caller.late(0)
    control_block.take(block.address, slot, number)
    control_block.answer(block.address, slot)
    assert not caller.late(0)


def test_a_late_answer_is_not_the_next_runs(block):
    """A worker may be slow to count itself out, after the caller has given up that run."""
    caller, workers = (
        DoorbellCaller(block, 0, BASES.ctypes.data),
        [DoorbellWorker(block, number, 0) for number in range(2)],
    )
    caller.ring(1, 2, own=False, step=2)
    pending = block.read(block.address + control_block.PENDING)
    workers[0].answer()
    caller.reset(1)  # it died
    caller.ring(2, 2, own=False, step=2)
    assert block.read(block.address + control_block.PENDING) >> 32 != pending >> 32
    workers[0].answer()
    assert not caller.finished()
    assert caller.owes(1)
    workers[1].answer()
    assert caller.finished()


def test_a_new_workers_slot_is_silent(block):
    caller = DoorbellCaller(block, 0, BASES.ctypes.data)
    caller.ring(3, 2, own=False, step=2)
    assert caller.owes(1)
    caller.reset(1)
    assert not caller.owes(1)


def test_a_repeated_plan_is_a_ring(pools):
    """The second run sends nothing by pipe, also with other numbers."""
    pool = pools["forkserver"]
    with sc.SharedArray(np.zeros(10)) as arr:
        sc.parallel_apply(kernels.affine, arr, 1.0, 1.0, pool=pool)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("shmcompute.backends.processes.protocol.pipe.Pipe.send", None)
            sc.parallel_apply(kernels.affine, arr, 3.0, 2.0, pool=pool)
        np.testing.assert_array_equal(arr.array, 5.0)


def test_the_caller_takes_a_share_if_told_to():
    def mark(x):
        x[:] = os.getpid()

    for caller_runs in (False, True):
        with sc.Pool(2, caller_runs=caller_runs) as pool, sc.SharedArray(np.zeros(8)) as arr:
            sc.parallel_apply(mark, arr, pool=pool)
            pids = [os.getpid()] * caller_runs + pool.pids
            assert set(arr.array) == set(pids)


def test_the_same_chunk_goes_to_the_same_worker(process_pool):
    def mark(x):
        x[:] = os.getpid()

    with sc.SharedArray(np.zeros(64)) as arr:
        sc.parallel_apply(mark, arr, chunksize=4, pool=process_pool)
        first = arr.array.copy()
        for _ in range(3):
            arr[:] = 0
            sc.parallel_apply(mark, arr, chunksize=4, pool=process_pool)
            np.testing.assert_array_equal(arr.array, first)


@pytest.mark.long
@pytest.mark.parametrize("start_method", METHODS)
def test_a_worker_killed_between_calls_is_replaced_before_the_next(start_method):
    with sc.Pool(2, start_method=start_method) as pool, sc.SharedArray(np.zeros(8)) as arr:
        step = sc.plan(kernels.affine, arr, 1.0, 1.0, pool=pool)
        step()
        for _ in range(3):
            _kill(pool.pids[-1])
            step()
        np.testing.assert_array_equal(arr.array, 4.0)


def test_a_plan_lives_no_longer_than_its_array(any_pool):
    """What a pool keeps of a call does not keep the memory of arrays that are dropped."""
    arr = sc.SharedArray(np.zeros(1000))
    address = arr.segment.address
    for _ in range(3):
        sc.parallel_apply(kernels.affine, arr, 1.0, 1.0, pool=any_pool)
    del arr
    assert address not in {segment.address for segment in storage.live()}


def test_more_numbers_than_the_block_has_room_for(any_pool):
    def kernel(x, *numbers):
        x[:] = sum(numbers)

    with sc.SharedArray(np.zeros(4)) as arr:
        for last in (1.0, 2.0):
            sc.parallel_apply(kernel, arr, *range(100), last, pool=any_pool)
            np.testing.assert_array_equal(arr.array, 4950 + last)
        sc.parallel_apply(kernels.affine, arr, 0.0, 1.0, pool=any_pool)
        np.testing.assert_array_equal(arr.array, 1.0)


def test_a_pool_heals_after_a_worker_could_not_be_started(monkeypatch):
    def fails(*_):
        raise WorkerLostError("no more processes")

    with sc.Pool(2) as pool, sc.SharedArray(np.zeros(8)) as arr:
        step = sc.plan(kernels.affine, arr, 1.0, 1.0, pool=pool)
        step()
        _kill(pool.pids[0])
        with monkeypatch.context() as patch:
            patch.setattr("shmcompute.backends.processes.worker_group.WorkerProcess", fails)
            with pytest.raises(WorkerLostError, match="no more"):
                step()
        taken = [os.pipe() for _ in range(4)]  # numbers of descriptors that were given back
        step()
        np.testing.assert_array_equal(arr.array, 2.0)
        for pair in taken:
            os.close(pair[0])
            os.close(pair[1])


@pytest.mark.parametrize("schedule", ["static", "dynamic"])
def test_a_callers_share_may_overrun_too(schedule):
    def kernel(x):
        time.sleep(0.01)

    options = {"chunksize": 1, "schedule": schedule, "timeout": 0.1}
    with (
        sc.Pool(2, caller_runs=True) as pool,
        sc.SharedArray(np.zeros(200)) as arr,
        pytest.raises(KernelTimeoutError),
    ):
        sc.parallel_apply(kernel, arr, **options, pool=pool)


@pytest.mark.long
def test_numba_without_its_compiler_runs_python():
    done = kernels.run(
        """
        import numba as nb, numpy as np, shmcompute as sc

        @nb.njit
        def k(x):
            for i in range(x.size):
                x[i] += 1

        for backend in ("processes", "threads", "serial"):
            with sc.SharedArray(np.zeros(8)) as arr:
                sc.parallel_apply(k, arr, backend=backend)
                print(arr.array.sum())
        """,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        fresh="Numba reads its settings when it is imported",
    )
    assert done.stdout == "8.0\n" * 3


def test_starting_in_the_background_leaves_warnings_alone():
    with sc.Pool(2) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        pool.ready()
        assert list(warnings.filters) == before


def test_what_objmode_raises_is_the_kernels_own(any_pool):
    """Also where machine code calls the kernel."""

    @nb.njit
    def helper():
        with nb.objmode():
            {}["mine"]

    @nb.njit
    def kernel(x):
        helper()

    with sc.SharedArray(np.zeros(8)) as arr, pytest.raises(KeyError, match="mine"):
        sc.parallel_apply(kernel, arr, pool=any_pool)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["processes", "threads"])
def test_an_interrupt_at_any_point_leaves_the_lock_free(backend):
    """Signals are looked at between any two steps of Python's."""
    done = kernels.run(
        """
        import random, signal, sys
        import numba as nb, numpy as np, shmcompute as sc

        @nb.njit
        def k(x):
            for i in range(x.size):
                x[i] += 1

        def interrupt(*_):
            raise KeyboardInterrupt

        random.seed(5)
        signal.signal(signal.SIGALRM, interrupt)
        pool = sc.Pool(2, backend=sys.argv[1], caller_runs=True)
        with pool, sc.SharedArray(np.zeros(64)) as arr:
            step = sc.plan(k, arr, pool=pool.ready())
            step()
            for _ in range(1000):
                try:
                    # Again, should it come in a finalizer, where Python drops it.
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.0004), 5)
                    while True:
                        step()
                except KeyboardInterrupt:
                    assert not pool.running._lock.locked()
            signal.setitimer(signal.ITIMER_REAL, 0)
            arr[:] = 0
            step()
            print(arr.array.sum())
        """,
        backend,
        check=False,  # one in a finalizer prints, and can't be helped
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "64.0\n"


def _kill(pid):
    """Return when it is dead."""
    victim = os.pidfd_open(pid)
    signal.pidfd_send_signal(victim, signal.SIGKILL)
    select.select([victim], [], [])
    os.close(victim)


@pytest.mark.soak
@pytest.mark.parametrize("caller_runs", [False, True])
def test_a_million_rings(caller_runs, counts):
    """No lost wake-up, no drift of memory or descriptors."""
    count = scaled(1_000_000)
    with (
        counts.trial(RINGS) as trial,
        sc.Pool(2, caller_runs=caller_runs) as pool,
        sc.SharedArray(np.zeros(64)) as arr,
    ):
        step = sc.plan(kernels.affine, arr, 1.0, 1.0, pool=pool)
        for _ in range(1000):
            step()
        watched = [psutil.Process(), *map(psutil.Process, pool.ready().pids)]
        before = [(process.memory_info().rss, process.num_fds()) for process in watched]
        for _ in range(count):
            step()
        after = [(process.memory_info().rss, process.num_fds()) for process in watched]
        trial.count += count
        trial.never("wrong results", not (arr.array == count + 1000).all())
        for (rss, fds), (rss_then, fds_then) in zip(before, after, strict=True):
            trial.never("descriptors more", fds_then - fds)
            trial.within("memory grew", (rss_then - rss) / 2**20, most=4.0, unit="MiB")


def test_a_death_is_told_to_every_call_that_asks(monkeypatch):
    """Also to one that asks at once after another."""
    monkeypatch.setattr("shmcompute.backends.processes.worker_group.TRUST", 60)
    with sc.Pool(2) as pool, sc.SharedArray(np.zeros(8)) as arr:
        step = sc.plan(kernels.affine, arr, 1.0, 1.0, pool=pool)
        step()
        victim = pool.running._group.workers[0]
        victim.process.kill()
        assert select.select([victim.end], [], [], 60)[0]
        group = pool.running._group
        group._seen_alive = 0.0
        assert [group.holds(group.registry.generation) for _ in range(2)] == [False] * 2


def test_who_owes_an_answer_is_not_silent():
    """Of one worker, too: an interrupted call asks this before it returns."""
    block = ControlMapping(1, fd=-1)
    caller = DoorbellCaller(block, 10, BASES.ctypes.data)
    worker = DoorbellWorker(block, 0, 10)
    assert caller.silent()
    note = caller.noter(0)
    note()
    assert not caller.silent()
    assert worker.wait() == NOTE
    worker.answer()
    assert caller.silent()

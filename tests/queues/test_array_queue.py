"""`ArrayQueue`: nothing lost, nothing twice, nobody waits for the dead."""

import contextlib
import copy
import ctypes
import multiprocessing
import os
import pickle
import queue
import random
import signal
import threading
import time
import warnings
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest
from faults.trial import QUEUE, scaled
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import run
from methods import METHODS, ended, started

import shmcompute as sc
from shmcompute.errors import (
    ClosedError,
    LockError,
    QueueClosedError,
    QueueEmptyError,
    QueueFullError,
    StorageError,
)
from shmcompute.queues import slot_ring


@pytest.fixture(params=["parks", "polls"])
def waits(request, monkeypatch):
    """Both ways to wait."""
    if request.param == "polls":
        monkeypatch.setenv("SHMCOMPUTE_WAIT", "poll")


def _thread(target, *args):
    thread = threading.Thread(target=target, args=args)
    thread.start()
    return thread


@pytest.mark.long
@pytest.mark.parametrize("storage", ["shm", "array"])
@pytest.mark.parametrize("shape", [(), 3, (2, 3), (0,)])
def test_arrays_come_out_as_they_went_in(storage, shape):
    """In their order, as copies."""
    rng = np.random.default_rng(1)
    with sc.ArrayQueue(shape, "f4", 3, storage=storage) as q:
        given = [rng.random(shape, "f4") if shape != () else np.array(rng.random(), "f4")] * 3
        for _ in range(3):
            for array in given:
                q.put(array)
            for array in given:
                got = q.get()
                np.testing.assert_array_equal(got, array)
                assert got.dtype == "f4"
                assert got.flags.owndata


STEPS = ["put", "put", "get", "get", "reserve", "publish", "fail", "look", "rebuild"]


@settings(deadline=None)
@given(st.integers(1, 5), st.lists(st.sampled_from(STEPS), max_size=60))
def test_it_is_a_deque(count, steps):
    """Whatever is done in turn, and if its index is built anew at any time."""
    with sc.ArrayQueue((), "i8", count) as q:
        model = _Model(q)
        for step in steps:
            getattr(model, step)()
            model.check()
        model.open.clear()  # dropped: given back
        model.check()


class _Model:
    """A deque, and the steps that a queue is to take as it does."""

    def __init__(self, q):
        self.q, self.items, self.open, self.number = q, deque(), [], 0

    def check(self):
        assert self.q.qsize() == len(self.items)
        assert self.q.empty() == (not self.items)
        assert self.q.full() == (not self.room())

    def room(self):
        return self.q.slots - len(self.items) - len(self.open)

    def put(self):
        self.number += 1
        if self.room():
            self.q.put_nowait(self.number)
            self.items.append(self.number)
        else:
            with pytest.raises(QueueFullError):
                self.q.put_nowait(self.number)

    def get(self):
        if self.items:
            assert self.q.get_nowait() == self.items.popleft()
        else:
            with pytest.raises(QueueEmptyError):
                self.q.get_nowait()

    def reserve(self):
        if self.room():
            self.number += 1
            self.open.append(self.q.reserve(block=False))
            self.open[-1].__enter__()[...] = self.number
            self.open[-1].value = self.number

    def publish(self):
        if self.open:
            self.items.append(self.open[0].value)
            self.open.pop(0).__exit__(None, None, None)

    def fail(self):
        if self.open:
            self.open.pop().__exit__(KeyError, KeyError(), None)

    def look(self):
        if self.items:
            with pytest.raises(KeyError), self.q.peek() as slot:
                assert slot == self.items[0]
                raise KeyError

    def rebuild(self):
        slot_ring.rebuild(self.q._table.base, self.q.slots)


def _produce(q, numbers):
    for number in numbers:
        q.put(np.full(4, number))


def _square(q, results):
    for array in q:
        with results.reserve() as slot:
            np.square(array, out=slot)
    results.put(None)


@pytest.mark.parametrize("method", METHODS)
def test_a_producer_and_a_consumer(method):
    """As arguments of `Process`, there and back; one closes, the other says None."""
    with sc.ArrayQueue(4, "i8", 2) as q, sc.ArrayQueue(4, "i8", 1) as results:
        process = started(method, _square, q, results)
        thread = _thread(lambda: (_produce(q, range(20)), q.close()))
        assert [int(array[0]) for array in results] == [n * n for n in range(20)]
        thread.join()
        ended(process)


@pytest.mark.parametrize("method", METHODS)
def test_it_travels_through_an_executor(method):
    context = multiprocessing.get_context(method)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with sc.ArrayQueue(4, "i8", 9) as q, ProcessPoolExecutor(1, context) as executor:
            executor.submit(_produce, q, [7]).result()
            assert q.get().tolist() == [7] * 4


def test_kernels_put_from_every_backend(any_pool):
    def kernel(x, q):
        q.put(x)

    with sc.ArrayQueue(2, "f8", 4) as q, sc.SharedArray(np.arange(8.0)) as x:
        sc.parallel_apply(kernel, x, q, pool=any_pool, chunksize=2)
        assert sorted(q.get().tolist() for _ in range(4)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_who_waits_is_served(waits):
    """For an array, and for room; with and without a timeout."""
    with sc.ArrayQueue((), "i8", 1) as q:
        for timeout in (None, 60):
            got = []
            thread = _thread(lambda timeout=timeout, got=got: got.append(q.get(timeout=timeout)))
            q.put(1)
            thread.join()
            assert got == [1]
            q.put(2)
            thread = _thread(lambda timeout=timeout: q.put(3, timeout=timeout))
            assert q.get() == 2
            thread.join()
            assert q.get() == 3


def test_threads_and_processes_share_it(waits):
    with sc.ArrayQueue(4, "i8", 3) as q:
        workers = [_thread(_produce, q, range(500)) for _ in range(2)]
        process = started("fork", _produce, q, range(500))
        got = [int(q.get()[0]) for _ in range(1500)]
        for worker in workers:
            worker.join()
        ended(process)
        assert sorted(got) == sorted([*range(500)] * 3)


def test_no_room_and_nothing_there_are_told(waits):
    """As the standard library's errors."""
    with sc.ArrayQueue((), "i8", 1) as q:
        for get in (q.get_nowait, lambda: q.get(False), lambda: q.get(timeout=0.01)):
            with pytest.raises(QueueEmptyError) as raised:
                get()
            assert isinstance(raised.value, queue.Empty)
        q.put(1)
        for put in (q.put_nowait, lambda x: q.put(x, False), lambda x: q.put(x, timeout=0.01)):
            with pytest.raises(QueueFullError, match="all 1 slots") as raised:
                put(2)
            assert isinstance(raised.value, queue.Full)
        assert q.get() == 1


def test_what_does_not_fit_is_refused():
    """Before a slot is taken."""
    with sc.ArrayQueue((2, 3), "f8", 1) as q:
        with pytest.raises(TypeError, match=r"expected an array of float64, got int64; .*astype"):
            q.put(np.zeros((2, 3), "i8"))
        with pytest.raises(ValueError, match=r"shape \(2, 3\), got \(3, 2\)"):
            q.put(np.zeros((3, 2)))
        with pytest.raises(TypeError, match="timeout: expected seconds"):
            q.put(np.zeros((2, 3)), timeout="1")
        with pytest.raises(ValueError, match="timeout: expected 0 seconds or more"):
            q.get(timeout=-1)
        assert not q.full()
        assert q.empty()
        with sc.SharedArray(np.ones((2, 3))) as arr:  # array-likes will do
            q.put(arr)
        assert q.get().sum() == 6


@pytest.mark.parametrize(
    ("args", "error", "told"),
    [
        ((3, "f8", 0), ValueError, "slots: expected at least 1"),
        ((3, "f8", 1.5), TypeError, "slots: expected a whole number"),
        ((-1, "f8", 1), ValueError, "shape"),
        ((1, "O", 1), TypeError, "Python objects"),
        ((2**40, "f8", 2**40), ValueError, "overflows"),
    ],
)
def test_what_can_not_be_made_is_refused(args, error, told):
    with pytest.raises(error, match=told):
        sc.ArrayQueue(*args)
    with pytest.raises(ValueError, match="unknown storage: 'file'"):
        sc.ArrayQueue(3, "f8", 1, storage="file")


def test_an_exception_puts_nothing():
    with sc.ArrayQueue(3, "f8", 1) as q:
        with pytest.raises(ZeroDivisionError), q.reserve() as slot:
            slot[:] = 1
            1 / 0  # noqa: B018
        assert q.empty()
        assert not q.full()


def test_an_exception_leaves_what_was_looked_at_in_its_place():
    with sc.ArrayQueue((), "i8", 4) as q:
        for number in range(4):
            q.put(number)
        with q.peek() as first, q.peek() as second:
            assert (first, second) == (0, 1)
            with pytest.raises(ZeroDivisionError), q.peek() as third:
                assert third == 2
                1 / 0  # noqa: B018
        assert [q.get(), q.get()] == [2, 3]


def test_who_is_slow_does_not_stop_the_others():
    """A slot that is held by a producer or a consumer keeps no other waiting."""
    with sc.ArrayQueue((), "i8", 3) as q, q.reserve() as slow:
        q.put(1)
        with q.peek() as held:
            q.put(2)
            assert held == 1
            assert q.get() == 2
        slow[...] = 3
        assert q.empty()


def test_a_closed_queue_has_not_ended_while_another_process_reads(waits):
    """What he puts back is still to be had."""
    with sc.ArrayQueue((), "i8", 2) as q:
        ours, theirs = multiprocessing.get_context("fork").Pipe()
        q.put(7)
        reader = started("fork", _put_back, q, theirs)
        assert ours.recv() == 7
        q.close()
        found = SimpleQueue()
        thread = threading.Thread(target=lambda: found.put(list(q)))
        thread.start()
        ours.send("put it back")
        ended(reader)
        assert found.get(timeout=60) == [7]
        thread.join()
        ours.close()
        theirs.close()


def _put_back(q, pipe):
    with contextlib.suppress(KeyError), q.peek() as slot:
        pipe.send(int(slot))
        pipe.recv()
        raise KeyError


def test_a_closed_queue_takes_nothing_and_gives_what_is_left(waits):
    with sc.ArrayQueue((), "i8", 2) as q:
        q.put(1)
        with q.reserve() as slot:  # begun before: it still comes
            slot[...] = 2
            got = []
            thread = _thread(lambda: got.extend(q))
            q.close()
            q.close()
            with pytest.raises(QueueClosedError, match="nothing more can be put"):
                q.put(3)
        thread.join()
        assert got == [1, 2]
        assert q.closed
        for error in (ClosedError, ValueError):
            with pytest.raises(error, match="all of it has been taken"):
                q.get()


def test_closing_tells_all_who_wait(waits):
    with sc.ArrayQueue((), "i8", 1) as empty, sc.ArrayQueue((), "i8", 1) as full:
        full.put(1)
        told = []

        def wait(function, *args):
            with pytest.raises(QueueClosedError):
                function(*args)
            told.append(1)

        threads = [_thread(wait, empty.get) for _ in range(3)]
        threads += [_thread(wait, full.put, 2) for _ in range(3)]
        empty.close()
        full.close()
        for thread in threads:
            thread.join()
        assert told == [1] * 6


def test_none_ends_one_iteration():
    with sc.ArrayQueue((), "i8", 4) as q:
        for item in (1, None, 2, None):
            q.put(item)
        assert list(q) == [1]
        assert q.get() == 2
        with q.peek() as nothing:
            assert nothing is None


def test_its_owner_removes_it():
    with sc.ArrayQueue(3, "f8", 2) as q:
        q.put(np.ones(3))
        packed = pickle.dumps(q)
        assert q.owner
        copy = pickle.loads(packed)
        assert copy.owner is False
        with pytest.raises(StorageError, match="made by another process"):
            copy.unlink()
        with copy:  # who is not the owner closes nothing
            assert not q.closed
    q.unlink()
    assert q.closed
    assert q.get().sum() == 3  # who has it may take what is left
    with pytest.raises(ClosedError):
        pickle.dumps(q)
    with pytest.raises(ClosedError):
        pickle.loads(packed)


def _hold(q, what, pipe):
    with getattr(q, what)():
        pipe.send(1)
        signal.pause()


@pytest.mark.parametrize("what", ["reserve", "peek"])
def test_a_killed_process_loses_its_slot_alone(what, waits):
    """Others have it as soon as they need it."""
    with sc.ArrayQueue((), "i8", 2) as q:
        if what == "peek":
            q.put(0)
        ours, theirs = multiprocessing.Pipe()
        process = started("fork", _hold, q, what, theirs)
        theirs.close()
        ours.recv()
        q.put(1)
        with pytest.raises(QueueFullError):
            q.put(2, timeout=0.3)  # its holder lives
        os.kill(process.pid, signal.SIGKILL)
        ended(process, -signal.SIGKILL)
        ours.close()
        q.put(2, timeout=60)
        assert [q.get(), q.get()] == [1, 2]


def test_a_killed_producer_keeps_no_consumer_waiting(waits):
    """In a closed queue, for what it had reserved."""
    with sc.ArrayQueue((), "i8", 2) as q:
        ours, theirs = multiprocessing.Pipe()
        process = started("fork", _hold, q, "reserve", theirs)
        theirs.close()
        ours.recv()
        q.close()
        thread = _thread(lambda: list(q))
        os.kill(process.pid, signal.SIGKILL)
        thread.join()
        ended(process, -signal.SIGKILL)
        ours.close()


def _die_with_the_lock(q, half):
    base, me = q._table.base, q._table.participant().token
    assert slot_ring.lock(base, me)
    half(base, q.slots, me)
    os.kill(os.getpid(), signal.SIGKILL)


def _write(base, slot, word):
    ctypes.c_int64.from_address(base + slot_ring.SLOTS + slot_ring.WORD * slot).value = word


def _nothing_done(base, count, me):
    pass


def _half_reserved(base, count, me):
    _write(base, 1, -2 * me - 1)


def _half_published(base, count, me):
    _write(base, 1, 2 * 100)


def _half_taken(base, count, me):
    _write(base, 0, -2 * me)


@pytest.mark.parametrize(
    ("half", "left"),
    [
        (_nothing_done, [10]),
        (_half_reserved, [10]),
        (_half_published, [10, 11]),
        (_half_taken, []),
    ],
)
def test_who_dies_in_the_middle_of_a_step_leaves_a_whole_queue(half, left, waits):
    """Whatever the last word that it wrote."""
    with sc.ArrayQueue((), "i8", 3) as q:
        q._data[:] = [10, 11, 12]
        with q.reserve():
            pass
        process = started("fork", _die_with_the_lock, q, half)
        ended(process, -signal.SIGKILL)
        for number in range(3 - len(left)):
            q.put(number, timeout=60)
        assert q.full()
        assert [int(q.get()) for _ in range(3)] == [*left, *range(3 - len(left))]


def test_a_timeout_holds_though_who_has_the_lock_is_stopped(waits):
    with sc.ArrayQueue((), "i8", 2) as q:
        q.put(1)
        process = started("fork", _stop_with_the_lock, q)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        for get in (q.get_nowait, lambda: q.get(timeout=0.05)):
            with pytest.raises(QueueEmptyError):
                get()
        for put in (q.put_nowait, lambda item: q.put(item, timeout=0.05)):
            with pytest.raises(QueueFullError):
                put(2)
        q.close()
        os.kill(process.pid, signal.SIGCONT)
        ended(process)
        assert list(q) == [1]


def _stop_with_the_lock(q):
    assert slot_ring.lock(q._table.base, q._table.participant().token)
    os.kill(os.getpid(), signal.SIGSTOP)
    ctypes.c_int64.from_address(q._table.base + slot_ring.LOCK).value = 0


@pytest.mark.long
@pytest.mark.parametrize("hold", ["reserve", "peek"])
def test_a_program_may_end_while_it_holds_a_slot(hold):
    """In a generator that stands still, which the interpreter's end closes."""
    program = """
        import sys
        import numpy as np, shmcompute as sc

        queue = sc.ArrayQueue(2, "f8", slots=2)
        if sys.argv[1] == "peek":
            queue.put(np.ones(2))

        def slots():
            while True:
                with getattr(queue, sys.argv[1])() as slot:
                    yield slot

        held = slots()
        next(held)
    """
    assert run(program, hold, fresh="has compiled nothing").stdout == ""


def test_a_forked_child_is_another_process():
    """It may use the queue, but its parent's slot is not its own."""
    with sc.ArrayQueue((), "i8", 2) as q:
        reservation = q.reserve()
        with reservation as slot:
            slot[...] = 5
            process = started("fork", _as_child, q, reservation)
            ended(process)
            assert q.get() == 6
        assert q.get() == 5


def _as_child(q, reservation):
    with pytest.raises(LockError, match="which forked this one"):
        reservation.__exit__(None, None, None)
    q.put(6)


def test_a_slot_is_for_one_block():
    with sc.ArrayQueue((), "i8", 2) as q, q.reserve() as _:
        reservation = q.reserve()
        with reservation, pytest.raises(LockError, match="in use"):
            reservation.__enter__()


@pytest.mark.long
def test_ctrl_c_ends_the_wait(waits):
    program = """
        import os, signal, sys, threading, shmcompute as sc
        with sc.ArrayQueue(3, "f8", 1) as q:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            try:
                q.get()
            except KeyboardInterrupt:
                print("interrupted", q.qsize(), q.full())
        """
    assert run(program).stdout == "interrupted 0 False\n"


def test_without_a_compiler_it_says_so():
    run(
        """
        import pytest, shmcompute as sc
        with pytest.raises(RuntimeError, match="NUMBA_DISABLE_JIT"):
            sc.ArrayQueue(3, "f8", 1)
        """,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        fresh="Numba reads its settings when it is imported",
    )


PRODUCERS = CONSUMERS = 4


def _send(q, sent, me, total):
    for number in range(total):
        q.put(np.array([me, number, me ^ number, 0]))
        sent[me] = number + 1


def _receive(q, seen, faults):
    last = [-1] * PRODUCERS
    while True:
        try:
            with q.peek() as slot:
                who, number, check, _ = slot.tolist()
        except QueueClosedError:
            return
        if check != who ^ number or number <= last[who]:
            sc.atomic_add(faults, 0, 1)
        last[who] = number
        sc.atomic_add(seen, (who, number), 1)


def _under_kills(total, seed):
    """4 producers of `total` items each, 4 consumers, one of each killed at any moment."""
    with (
        sc.ArrayQueue(4, "i8", 8) as q,
        sc.SharedArray.zeros(PRODUCERS, "i8") as sent,
        sc.SharedArray.zeros((PRODUCERS, total), "i1") as seen,
        sc.SharedArray.zeros(1, "i8") as faults,
    ):
        producers = [started("fork", _send, q, sent, me, total) for me in range(PRODUCERS)]
        consumers = [started("fork", _receive, q, seen, faults) for _ in range(CONSUMERS)]
        chance = random.Random(seed)
        for victim in (chance.choice(producers), chance.choice(consumers)):
            moment = chance.randrange(total)
            while sent[:].max() < moment and victim.is_alive():
                time.sleep(0.0005)
            victim.kill()  # it may have come to its end
        stuck = _stuck(producers)
        q.close()
        stuck += _stuck(consumers)
        put = np.arange(total) < sent[:][:, None]
        # The victim may have put one more than it could note.
        unsent = np.arange(total) > sent[:][:, None]
        return {
            "processes stuck": stuck,
            "items out of order or torn": int(faults[0]),
            "items twice": int((seen[:] > 1).sum()),
            "items that nobody put": int(seen[:][unsent].sum()),
            "items lost beside the victims' own": max(0, int((put & (seen[:] == 0)).sum()) - 1),
            "producers that did not end": max(0, int((sent[:] < total).sum()) - 1),
        }


def test_a_copy_is_the_same_queue():
    with sc.ArrayQueue(3, float, slots=1) as queue:
        for copied in (copy.copy, copy.deepcopy):
            copied({"queue": queue})["queue"].put(np.ones(3))
            copied(queue).get(timeout=1)
            assert queue.empty()


def _stuck(processes):
    """How many do not come to their end, or to one that they should not."""
    for process in processes:
        process.join(600)
    stuck = sum(process.exitcode not in (0, -signal.SIGKILL) for process in processes)
    for process in processes:
        process.kill()
        process.join()
    return stuck


@pytest.mark.parametrize("seed", range(3))
def test_killing_some_loses_no_more_than_they_held(seed):
    """Nothing twice, all in order."""
    found = _under_kills(2000, seed)
    assert not any(found.values()), found


@pytest.mark.soak
def test_a_million_items_under_kills(counts):
    with counts.trial(QUEUE) as trial:
        for seed in range(3):
            total = scaled(250_000)
            for what, found in _under_kills(total, seed).items():
                trial.never(what, found)
            trial.count += PRODUCERS * total
            trial.tell("processes killed", 2)


def test_a_queue_knows_whether_it_is_closed():
    with sc.ArrayQueue(3, "f8", 2) as items:
        assert items.closed is False
        items.close()
        assert items.closed is True


@pytest.mark.parametrize("held", ["reserve", "peek"])
def test_an_interrupt_between_a_slot_and_its_view_gives_the_slot_back(held):
    """At once, though somebody keeps what had asked for it."""

    class Interrupting:
        def __getitem__(self, _):
            raise KeyboardInterrupt

    with sc.ArrayQueue(3, "f8", 1) as q:
        if held == "peek":
            q.put(np.ones(3))
        slot = getattr(q, held)()
        slot.arrays = Interrupting()
        with pytest.raises(KeyboardInterrupt), slot:
            pass
        if held == "reserve":
            q.put_nowait(np.ones(3))
        np.testing.assert_array_equal(q.get_nowait(), np.ones(3))

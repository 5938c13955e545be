"""`SharedArray.lock`: one holder at a time, and none that is dead."""

import contextlib
import errno
import fcntl
import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
from queue import SimpleQueue

import numpy as np
import pytest
from faults.trial import LOCKS
from kernels import run
from methods import METHODS, ended, started

import shmcompute as sc
from shmcompute.errors import LockError, LockTimeoutError
from shmcompute.storage import liveness


@pytest.fixture(params=["shm", "file", "array", "lock file"])
def arr(request, tmp_path, monkeypatch):
    """An array of each kind of storage."""
    kind = request.param
    if kind == "lock file":  # as on macOS
        monkeypatch.setenv("SHMCOMPUTE_LOCK_FILES", "1")
        kind = "shm"
    name = tmp_path / "x.npy" if kind == "file" else None
    with contextlib.ExitStack() as opened:
        made = opened.enter_context(sc.SharedArray.zeros(3, "i8", storage=kind, name=name))
        if request.param == "lock file":  # else programs that run meanwhile take it for orphaned
            held = opened.enter_context(open(f"/dev/shm/{made.name}"))
            fcntl.flock(held, fcntl.LOCK_SH)
        yield made


def _try(arr):
    lock = arr.lock()
    had = lock.acquire(block=False)
    if had:
        lock.release()
    return had


def _threads_try(arr):
    """Whether another thread could have the lock."""
    return _elsewhere(lambda: _try(arr))


def _increment(arr, times):
    for _ in range(times):
        with arr.lock():
            arr[0] += 1


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_the_standard_librarys_counter(method):
    """The example of `multiprocessing.Value`: four processes, 10 000 increments each."""
    with sc.SharedArray.zeros(1, "i8") as counter:
        processes = [started(method, _increment, counter, 10_000) for _ in range(4)]
        for process in processes:
            ended(process)
        assert counter[0] == 40_000


def test_it_excludes_threads_and_processes(arr):
    """On every storage, whoever attached how."""
    threads = [threading.Thread(target=_increment, args=(arr, 200)) for _ in range(2)]
    process = started("fork", _increment, arr, 200)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended(process)
    assert arr[0] == 600


@pytest.mark.long
def test_a_workers_kernel_may_take_it(process_pool):
    with sc.SharedArray.zeros(1, "i8") as counter, sc.SharedArray.zeros(8) as x:

        def kernel(part, counter):
            with counter.value.lock():
                counter.value[0] += part.size

        sc.parallel_apply(kernel, x, _Hidden(counter), pool=process_pool, chunksize=1)
        assert counter[0] == 8


class _Hidden:
    """Passed as it is, not split."""

    def __init__(self, value):
        self.value = value


def test_who_waits_has_it_when_it_is_released(arr):
    """In a thread, with and without a timeout."""
    for timeout in (None, 60):
        with arr.lock():
            thread = threading.Thread(target=_enter, args=(arr, timeout))
            thread.start()
            assert arr[1] == 0
        thread.join()
        assert arr[1] == 1
        arr[1] = 0


def _enter(arr, timeout):
    with arr.lock(timeout):
        arr[1] += 1


@pytest.mark.parametrize("timeout", [None, 60])
def test_who_waits_with_a_timeout_is_not_left_behind(arr, timeout):
    """Though another takes the lock again as soon as it has released it."""
    had = threading.Event()

    def wait():
        with arr.lock(60):
            had.set()

    waiter = threading.Thread(target=wait)
    rounds = 0
    while not had.is_set() and rounds < 40:
        with arr.lock(timeout):
            if not waiter.ident:
                waiter.start()
            had.wait(0.01)
        rounds += 1
    waiter.join()
    assert rounds < 40


def test_a_timeout_says_who_holds_it(arr):
    with arr.lock():
        assert not _threads_try(arr)
        with pytest.raises(LockTimeoutError, match="not had within") as raised:
            _elsewhere(lambda: arr.lock(0.01).__enter__())
    assert f"process {os.getpid()} holds it" in str(raised.value)
    assert isinstance(raised.value, TimeoutError)
    assert _threads_try(arr)


def _elsewhere(function):
    """What it returns or raises in another thread."""
    told = SimpleQueue()

    def work():
        try:
            told.put((function(), None))
        except BaseException as error:
            told.put((None, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    result, error = told.get()
    if error is not None:
        raise error
    return result


def test_an_exception_releases_it_as_usual(arr):
    with pytest.raises(ZeroDivisionError), arr.lock():
        1 / 0  # noqa: B018
    with arr.lock(0) as state:
        assert not state.abandoned


HOLDER = """
import sys, shmcompute as sc
arr = sc.SharedArray.attach(sys.argv[1])
lock = arr.lock()
while True:
    lock.acquire()
    print(lock.abandoned, flush=True)
    sys.stdin.readline()
    lock.release()
"""


def _hold(arr, told, wait):
    lock = arr.lock()
    lock.acquire()
    told.send(lock.abandoned)
    wait.recv()


@pytest.mark.long
def test_a_killed_holder_leaves_it_to_the_next_who_knows(arr):
    """As soon as it is dead."""
    context = multiprocessing.get_context("fork")
    for _ in range(5):
        ours, theirs = context.Pipe()
        process = started("fork", _hold, arr, theirs, theirs)
        theirs.close()
        assert ours.recv() is False
        os.kill(process.pid, signal.SIGKILL)
        ended(process, -signal.SIGKILL)
        with arr.lock(timeout=0) as state:
            assert state.abandoned
        ours.close()
        with arr.lock(timeout=0) as state:
            assert not state.abandoned


@pytest.mark.parametrize("timeout", [None, 60])
def test_who_waits_for_a_dead_holder_has_it(arr, timeout):
    """Without a timeout the kernel wakes it, with one it looks."""
    _, abandoned = _after_a_kill(arr, timeout)
    assert abandoned


@pytest.mark.soak
def test_who_waits_for_a_dead_holder_has_it_soon(arr, counts):
    """Within half a second of its death."""
    with counts.trial(LOCKS) as trial:
        for number in trial.times(200):
            took, abandoned = _after_a_kill(arr, 60 if number % 2 else None)
            trial.within("from death to the next taker", took, most=0.5)
            trial.never("takers that did not know", not abandoned)


def _after_a_kill(arr, timeout):
    """Seconds from a SIGKILL of the holder until another thread has the lock; whether it knows."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = started("fork", _hold, arr, theirs, theirs)
    theirs.close()
    ours.recv()
    told = SimpleQueue()

    def wait():
        with arr.lock(timeout) as state:
            told.put((time.monotonic(), state.abandoned))

    thread = threading.Thread(target=wait)
    thread.start()
    killed = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    had, abandoned = told.get(timeout=60)
    thread.join()
    ended(process, -signal.SIGKILL)
    ours.close()
    return had - killed, abandoned


def test_a_forked_child_does_not_hold_what_its_parent_does(arr):
    """It lives on, with all that the holder had open; the lock is free all the same."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = started("fork", _hold_and_fork, arr, theirs)
    theirs.close()
    child = ours.recv()
    os.kill(process.pid, signal.SIGKILL)
    with arr.lock(timeout=60) as state:
        assert state.abandoned
    os.kill(child, signal.SIGKILL)
    with pytest.raises(EOFError):  # it is gone
        ours.recv()
    ours.close()
    ended(process, -signal.SIGKILL)


def _hold_and_fork(arr, pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with arr.lock():
            child = os.fork()
            if child:
                pipe.send(child)
            signal.pause()


def test_a_forked_child_can_not_release_it(arr):
    lock = arr.lock()
    lock.acquire()
    process = started("fork", _release, lock)
    ended(process)
    assert not _threads_try(arr)
    lock.release()


def _release(lock):
    with pytest.raises(LockError, match="another process, which forked this one"):
        lock.release()


def test_who_does_not_hold_it_can_not_release_it(arr):
    lock = arr.lock()
    with pytest.raises(LockError, match="not held through this object"):
        lock.release()
    with lock:
        with pytest.raises(LockError, match="held by another thread"):
            _elsewhere(lock.release)
        with pytest.raises(LockError, match="not held through this object"):
            arr.lock().release()
    with pytest.raises(RuntimeError):  # as a `threading.Lock`
        lock.release()


def test_who_holds_it_is_not_left_waiting_for_itself(arr):
    with arr.lock() as lock:
        for again in (lock, arr.lock(), arr.lock(timeout=5)):
            with pytest.raises(LockError, match="this thread holds the lock"):
                again.acquire()
        assert not _threads_try(arr)
    assert _threads_try(arr)


def test_a_thread_that_ended_with_a_lock_is_no_other_thread():
    """Though the system may give the next one its number."""
    with sc.SharedArray.zeros(1) as arr:
        lock, had = arr.lock(), []
        for use in (lock.acquire, lambda: arr.lock().acquire(block=False)):
            thread = threading.Thread(target=lambda use=use: had.append(use()))
            thread.start()
            thread.join()
        assert had == [True, False]  # and no LockError


def test_a_file_that_may_not_be_written_is_not_locked(tmp_path, monkeypatch):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(3))

    def refused(opened, flags, *args, real=os.open):
        if opened == str(path) and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", opened)
        return real(opened, flags, *args)

    with sc.SharedArray.open(path, mode="r") as arr:
        monkeypatch.setattr(os, "open", refused)
        with pytest.raises(sc.errors.StorageError, match="can't be locked by who may not write"):
            arr.lock().acquire()


def test_arrays_of_one_arena_have_locks_of_their_own():
    with (
        sc.SharedArray.zeros(3, storage="array") as one,
        sc.SharedArray.zeros(3, storage="array") as other,
        one.lock(),
        other.lock(timeout=0) as state,
    ):
        assert not state.abandoned


def test_two_ways_to_open_a_file_have_one_lock(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(3))
    before = path.read_bytes()
    with sc.SharedArray.open(path) as one, sc.SharedArray.open(path, "r") as other:
        with one.lock():
            assert not _threads_try(other)
            np.testing.assert_array_equal(np.load(path), np.arange(3))  # while it is held, too
        assert _threads_try(other)
    assert path.read_bytes() == before


def test_what_stands_behind_an_array_in_a_file_stays(tmp_path):
    path = tmp_path / "two.npy"
    with path.open("wb") as file:
        np.save(file, np.arange(3))
        np.save(file, np.arange(4))
    before = path.read_bytes()
    with sc.SharedArray.open(path) as arr, arr.lock() as state:
        assert not state.abandoned
    assert path.read_bytes() == before


def _mark_of_a_dead_holder(path):
    """What a process leaves in a file that dies with its lock."""
    before = path.stat().st_size
    pid = os.fork()
    if not pid:
        try:
            arr = sc.SharedArray.open(path)
            lock = arr.lock()
            lock.acquire()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return path.read_bytes()[before:]


def _abandoned(path):
    with sc.SharedArray.open(path) as arr, arr.lock() as state:
        return state.abandoned


def test_a_dead_holders_mark_is_told_of_and_goes(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(3))
    before = path.read_bytes()
    assert _mark_of_a_dead_holder(path)
    assert [_abandoned(path), _abandoned(path)] == [True, False]
    assert path.read_bytes() == before


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "behind", [b"", b"more", b"as much as a mark is long, or a bit more than it"]
)
def test_data_that_reads_like_a_mark_is_data(tmp_path, count, behind):
    """In the array or behind it, of this file or of another one."""
    path, other = tmp_path / "x.npy", tmp_path / "other.npy"
    np.save(other, np.arange(3))
    np.save(path, np.zeros(1000, "u1"))
    for mark in (_mark_of_a_dead_holder(other), _mark_of_a_dead_holder(path)):
        data = np.zeros(1000, "u1")
        data[-len(mark) :] = np.frombuffer(mark, "u1")
        with path.open("wb") as file:
            for _ in range(count):
                np.save(file, data)
            file.write(behind)
        before = path.read_bytes()
        assert not _abandoned(path)
        assert path.read_bytes() == before
        assert _mark_of_a_dead_holder(path)
        assert [_abandoned(path), _abandoned(path)] == [True, False]
        assert path.read_bytes() == before


def test_a_mark_that_claims_to_be_of_this_file_is_data_where_the_file_says_so(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(1000, "u1"))
    size = path.stat().st_size
    mark = bytearray(_mark_of_a_dead_holder(path))
    assert (start := mark.find(size.to_bytes(8, "little"))) > 0
    mark[start : start + 8] = (size - len(mark)).to_bytes(8, "little")  # a mark at the array's end
    data = np.zeros(1000, "u1")
    data[-len(mark) :] = np.frombuffer(mark, "u1")
    with path.open("wb") as file:  # the same file
        np.save(file, data)
    for _ in range(2):
        assert not _abandoned(path)
        np.testing.assert_array_equal(np.load(path), data)


def test_a_file_that_was_written_anew_while_it_was_locked_is_whole(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.arange(3))
    with sc.SharedArray.open(path) as arr, arr.lock():
        np.save(path, np.arange(5))
    np.testing.assert_array_equal(np.load(path), np.arange(5))
    assert path.stat().st_size == 128 + 40


def test_a_closed_array_is_not_locked():
    """Nor one that its owner has closed elsewhere."""
    with sc.SharedArray.zeros(1) as arr:
        lock = arr.lock()
        arr.close()
        with pytest.raises(sc.errors.ClosedError):
            arr.lock()
        with pytest.raises(sc.errors.ClosedError):
            lock.acquire()


def test_an_array_whose_owner_is_gone_is_not_locked():
    with sc.SharedArray.zeros(1) as arr:
        handle = pickle.loads(pickle.dumps(arr)).segment.handle
        arr.unlink()
        with pytest.raises(sc.errors.SegmentNotFoundError):
            handle.locks(arr.segment.layout)


def test_closing_while_it_is_held_releases_it_later():
    arr = sc.SharedArray.zeros(1)
    with arr.lock():
        arr.close()


def test_a_lock_that_is_dropped_is_released_as_by_death(arr):
    arr.lock().acquire()
    with arr.lock(timeout=0) as state:
        assert state.abandoned


def test_it_does_not_travel(arr):
    with pytest.raises(TypeError, match="send the array"):
        pickle.dumps(arr.lock())


@pytest.mark.parametrize(
    ("timeout", "error"), [("1", TypeError), (-1, ValueError), (True, TypeError)]
)
def test_a_timeout_is_a_time(arr, timeout, error):
    with pytest.raises(error, match="timeout: expected"):
        arr.lock(timeout)
    with pytest.raises(error, match="timeout: expected"):
        arr.lock().acquire(timeout=timeout)


def test_where_descriptors_are_sent_it_says_why_not(monkeypatch):
    with sc.SharedArray.zeros(1, storage="array") as arr:
        monkeypatch.setenv("SHMCOMPUTE_SEND_DESCRIPTORS", "1")
        with pytest.raises(sc.errors.StorageError, match="shares its locks"):
            arr.lock().acquire()


@pytest.mark.long
def test_ctrl_c_ends_the_wait_and_leaves_it_to_others():
    """Waiting for ever, and for a time."""
    program = """
        import os, signal, sys, threading, shmcompute as sc
        arr = sc.SharedArray.attach(sys.argv[1])
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            with arr.lock(eval(sys.argv[2])):
                print("had it")
        except KeyboardInterrupt:
            print("interrupted")
        """
    with sc.SharedArray.zeros(1) as arr, arr.lock():
        for timeout in ("None", "60"):
            assert run(program, arr.name, timeout).stdout == "interrupted\n"


def test_lock_files_go_with_their_segment(monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_LOCK_FILES", "1")
    with sc.SharedArray.zeros(1) as arr, arr.lock():
        held = liveness.folder() / liveness.HELD / arr.name
        assert held.exists()
    assert not held.exists()

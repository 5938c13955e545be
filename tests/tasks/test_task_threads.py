"""`TaskThreads`: order, end, and an interrupt or a handler of a signal within ``submit()``."""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import CancelledError

import pytest
from steps import interrupted

from shmcompute.tasks import TaskThreads


@pytest.fixture
def threads():
    threads = TaskThreads(2, "test")
    yield threads
    threads.shutdown(wait=True, cancel_futures=True)


def test_as_many_run_at_once_as_there_are_workers(threads):
    meet = threading.Barrier(2, timeout=60)
    for future in [threads.submit(meet.wait) for _ in range(2)]:
        assert future.result(60) in (0, 1)
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("test_")]
    assert sorted(names) == ["test_0", "test_1"]


def test_what_a_task_raises_is_its_futures(threads):
    future = threads.submit(int, "a")
    with pytest.raises(ValueError, match="invalid literal"):
        future.result(60)


def test_a_future_that_somebody_has_set_costs_no_thread(threads):
    for number in range(3):
        go = threading.Event()
        future = threads.submit(go.wait, 60)
        while not future.running():
            pass
        future.set_result(number)
        go.set()
    assert [threads.submit(int, number).result(60) for number in range(3)] == [0, 1, 2]


def test_the_end_waits_for_tasks_or_cancels_them():
    go, order = threading.Event(), []
    threads = TaskThreads(1, "test")
    first = threads.submit(go.wait, 60)
    kept = [threads.submit(order.append, number) for number in range(3)]
    threads.shutdown(wait=False, cancel_futures=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        threads.submit(int)
    go.set()
    threads.shutdown(wait=True, cancel_futures=False)
    assert first.result(0)
    assert order == [0, 1, 2]
    assert all(future.done() for future in kept)

    go.clear()
    threads = TaskThreads(1, "test")
    first = threads.submit(go.wait, 60)
    dropped = threads.submit(order.append, 3)
    threads.shutdown(wait=False, cancel_futures=True)
    go.set()
    with pytest.raises(CancelledError):
        dropped.result(60)
    assert first.result(60)
    assert order == [0, 1, 2]


def test_threads_end_with_who_refers_to_them():
    threads = TaskThreads(1, "orphan")
    threads.submit(int).result(60)
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "orphan_0")
    del threads
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.skipif(sys.version_info[:2] == (3, 13), reason="its tracing misses steps")
def test_an_interrupt_at_any_step_of_a_submit_locks_nothing():
    made = []

    def work():
        made.clear()
        made.append(TaskThreads(2, "test"))
        for _ in range(3):
            made[0].submit(int)

    def check():
        for threads in made:  # or the interrupt came before
            assert [threads.submit(int, number).result(60) for number in range(3)] == [0, 1, 2]
            threads.shutdown(wait=True, cancel_futures=False)

    assert interrupted(work, check, within=TaskThreads.submit.__code__.co_filename) > 10


def test_the_handler_of_a_signal_submits_within_a_submit(threads):
    submitted = []
    before = signal.signal(signal.SIGALRM, lambda *_: submitted.append(threads.submit(int)))
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        futures = [threads.submit(int, number) for number in range(2000)]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [future.result(60) for future in futures] == list(range(2000))
    assert {future.result(60) for future in submitted} == {0}

"""Parts of an algorithm: each is run once, by several threads, and errors come through."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import shmcompute as sc
from shmcompute.algorithms import run_parts, workers
from shmcompute.default_pools import default_pool

FOLDER = Path(__file__).parent


def test_each_part_is_run_once():
    seen = []
    run_parts(seen.append, 100)
    assert sorted(seen) == list(range(100))


def test_parts_run_at_once():
    both = threading.Barrier(2, timeout=60)
    run_parts(lambda number: both.wait(), 2)  # would break if one waited for the other


def test_what_a_part_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        run_parts(lambda number: 1 // number, 3)


def test_within_a_part_there_is_one_worker():
    counts = []
    run_parts(lambda number: counts.append(workers()), 2)
    assert counts == [1, 1]


def test_no_part_is_none():
    run_parts(lambda number: 1 / 0, 0)


def test_no_part_begins_after_one_has_failed():
    begun = []

    def part(number):
        begun.append(number)
        raise KeyError(number)

    with pytest.raises(KeyError):
        run_parts(part, 100)
    assert len(begun) <= workers()


def test_nothing_runs_when_an_interrupt_is_raised():
    """Of two parts the caller's is interrupted: the other one has ended by then."""
    both, ended = threading.Barrier(2, timeout=60), []
    caller = threading.get_ident()

    def part(number):
        both.wait()
        if threading.get_ident() == caller:
            raise KeyboardInterrupt
        sum(range(100_000))
        ended.append(number)

    with pytest.raises(KeyboardInterrupt):
        run_parts(part, 2)
    assert len(ended) == 1


def test_an_interrupt_is_raised_before_an_error():
    both, caller = threading.Barrier(2, timeout=60), threading.get_ident()

    def part(number):
        both.wait()
        raise KeyboardInterrupt if threading.get_ident() == caller else ValueError

    with pytest.raises(KeyboardInterrupt):
        run_parts(part, 2)


def test_who_is_busy_is_not_waited_for():
    """Tasks hold all threads of the pool: the caller runs all parts."""
    held, release = threading.Semaphore(0), threading.Event()

    def hold():
        held.release()
        release.wait(60)

    pool = default_pool("threads")
    tasks = [pool.submit(hold) for _ in range(pool.workers)]
    try:
        for _ in tasks:
            held.acquire(timeout=60)
        seen = []
        run_parts(lambda number: seen.append(threading.get_ident()), 5)
        assert seen == [threading.get_ident()] * 5
    finally:
        release.set()
        for task in tasks:
            task.result()


def test_parts_heed_the_callers_error_state():
    zeros = np.zeros(2)
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        run_parts(lambda number: 1 / zeros, 4)
    with np.errstate(divide="ignore"):
        run_parts(lambda number: 1 / zeros, 4)


@pytest.mark.long
def test_in_a_worker_and_at_the_programs_end_the_caller_runs_them():
    with sc.Pool(1) as pool:
        assert pool.submit(_threads_of_parts).result() == 1
    program = (
        "import atexit, test_parts\nfrom shmcompute.algorithms import run_parts\n"
        "atexit.register(lambda: print(test_parts._threads_of_parts()))\nrun_parts(print, 0)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FOLDER, timeout=60)
    assert done.stdout == "1\n", done.stderr


def _threads_of_parts():
    seen = set()
    run_parts(lambda number: seen.add(threading.get_ident()), 8)
    return len(seen)

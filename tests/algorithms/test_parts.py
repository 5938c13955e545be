"""Parts of an algorithm: each is run once, by several threads, and errors come through."""

from __future__ import annotations

import threading

import pytest

from shmcompute.algorithms import run_parts, workers


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

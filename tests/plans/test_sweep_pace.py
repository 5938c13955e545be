"""`Pace`: runs grow to their span, and the quicker of two ways gets most of the time."""

from __future__ import annotations

from itertools import pairwise

import pytest

from shmcompute.plans import sweep_pace
from shmcompute.plans.sweep_pace import Pace

BELL = 30e-6  # seconds that a run takes beside its phases


def go(phases, together, alone, parts=2):
    """The runs of so many phases, which take so many seconds either way: (phases, alone, time)."""
    pace, runs, done = Pace(phases, phases * together * sweep_pace.STREAM, parts), [], 0
    while done < phases:
        some = min(pace.some, phases - done)
        taken = BELL + some * (alone if pace.alone else together)
        runs.append((some, pace.alone, taken))
        pace.ran(some, taken)
        done += some
    return runs


@pytest.mark.parametrize("better", [False, True])
@pytest.mark.parametrize("best", [1e-6, 3e-6, 10e-6])
@pytest.mark.parametrize("worse", [1.5, 4, 50])
def test_the_quicker_way_gets_most_of_the_time(better, best, worse):
    rates = {better: best, not better: best * worse}
    runs = go(300_000, rates[False], rates[True])
    total = sum(taken for *_, taken in runs)
    assert total < 1.1 * 300_000 * best
    assert runs[0][1] is False
    assert runs[-1][1] is better or runs[-2][1] is better


def test_it_finds_out_when_the_other_way_becomes_the_quicker_one():
    pace, alone = Pace(10**6, 0, 2), []
    for number in range(40):
        rate = {False: 3e-6, True: 1e-6} if number < 20 else {False: 3e-6, True: 9e-6}
        alone.append(pace.alone)
        pace.ran(pace.some, BELL + pace.some * rate[pace.alone])
    assert sum(alone[10:20]) >= 5  # every other run is a trial, and short
    assert sum(alone[30:]) <= 5


@pytest.mark.parametrize(("parts", "phase"), [(1, 1e-6), (2, 1e-3), (8, 5e-4)])
def test_long_phases_and_single_parts_are_never_tried_otherwise(parts, phase):
    assert not any(alone for _, alone, _ in go(10_000, phase, phase / 2, parts))


def test_phases_of_some_length_are_tried_when_they_have_taken_a_while():
    runs = go(10_000, 1e-4, 2e-4)
    assert not any(alone for _, alone, _ in runs[:3])
    assert any(alone for _, alone, _ in runs)
    total = sum(taken for *_, taken in runs)
    assert total < 1.05 * 10_000 * 1e-4


def test_runs_grow_to_their_span_and_no_further():
    runs = go(10**6, 1e-6, 2e-6)
    assert max(taken for *_, taken in runs) <= sweep_pace.SPAN * 1.1
    usual = [some for some, alone, _ in runs if not alone]
    assert all(after <= sweep_pace.FASTER * some for some, after in pairwise(usual))


def test_of_much_memory_the_first_run_is_a_phase():
    assert Pace(100, 100 * 1e9, 2).some == 1


def test_a_run_in_which_nothing_was_done_says_nothing():
    pace = Pace(1000, 0.0, 2)
    some = pace.some
    for _ in range(50):
        pace.ran(0, 1e-6)
    assert (pace.some, pace.alone) == (some, False)

"""The schedule of sweeps: each level finds what it needs, and nothing is overwritten too early."""

from __future__ import annotations

import random

import numpy as np
import pytest

from shmcompute.plans.sweep_schedule import (
    Footprint,
    Reach,
    Schedule,
    needs_of,
    reach_of,
    schedule,
    slopes,
)

WIDE = 1000  # bytes from one array to the next: no two of them meet


def footprints(rng, arrays, links):
    """Random links over arrays of 8 bytes an index, and the same with two arrays exchanged."""
    drawn = []
    for _ in range(links):
        written, *read = rng.sample(range(arrays), rng.randint(1, arrays))
        halos = [(array, rng.randint(0, 3), rng.randint(0, 3)) for array in read]
        drawn.append((written, halos))
    exchanged = {0: 1, 1: 0}
    sweeps = [drawn, [_exchanged(link, exchanged) for link in drawn]]
    return [link for sweep in sweeps for link in sweep]


def _exchanged(link, names):
    written, halos = link
    return names.get(written, written), [(names.get(a, a), b, c) for a, b, c in halos]


def touched(link):
    """What a link touches, as bytes of one long memory. Index 0 of an array stands at 64."""
    written, halos = link
    yield Footprint(WIDE * written, WIDE * written + 8, 8, writes=True)
    for array, before, after in halos:
        yield Footprint(WIDE * array - 8 * before, WIDE * array + 8 * after + 8, 8, writes=False)


def random_case(seed):
    """Links and a schedule, most with parts that are just as long as their slopes."""
    rng = random.Random(seed)
    arrays, links = rng.randint(2, 4), rng.randint(1, 3)
    levels = footprints(rng, arrays, links)
    needs = needs_of([list(touched(link)) for link in levels], 2000)
    sweeps, parts = rng.choice([2, 4]), rng.randint(1, 4)
    found = slopes(needs, sweeps)
    edges = [0]
    for _ in range(parts):
        edges.append(edges[-1] + max(1, sum(found[-1])) + rng.choice([0, 0, 3, 20]))
    slab = rng.choice([1, 3, 7, 50])
    plan = Schedule(tuple(edges), links, sweeps, slab, tuple(found))
    if rng.random() < 0.1:
        plan = Schedule(tuple(edges), links, 1, slab, ())
    return rng, levels, links, edges[-1], plan


def run(rng, plan, times, do):
    """Go through all phases, the parts in any order that their waiting allows."""
    done = [0] * plan.parts
    running = {}
    while min(done) < plan.phases(times):
        ready = [
            part
            for part in range(plan.parts)
            if part in running
            or (
                done[part] < plan.phases(times)
                and all(done[other] >= done[part] for other in plan.waits_for(part))
            )
        ]
        part = rng.choice(ready)
        steps = running.setdefault(part, plan.steps(part, done[part], times))
        for _ in range(rng.randint(1, 200)):
            step = next(steps, None)
            if step is None:
                del running[part]
                done[part] += 1
                break
            do(step)


@pytest.mark.parametrize("seed", range(16))
def test_sweeps_in_blocks_are_equal_to_sweeps_in_turn(seed):
    rng, levels, links, length, plan = random_case(seed)
    times, pad = rng.randint(1, 9), 4
    start = np.random.default_rng(seed).random((4, length + 2 * pad))

    def do(arrays, level, start, stop):
        written, halos = levels[level % (2 * links)]
        total = arrays[written, pad + start : pad + stop] * 0.5 + level
        for array, before, after in halos:
            for shift in range(-before, after + 1):
                total += arrays[array, pad + start + shift : pad + stop + shift] * (0.1 + shift)
        arrays[written, pad + start : pad + stop] = np.sin(total)

    expected, found = start.copy(), start.copy()
    for level in range(times * links):
        do(expected, level, 0, length)
    run(rng, plan, times, lambda step: do(found, *step))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", range(10))
def test_each_index_goes_through_each_level_once_and_in_order(seed):
    rng, _, links, length, plan = random_case(seed)
    times = rng.randint(0, 9)
    level_of = np.zeros(length, int)

    def do(step):
        assert (level_of[step.start : step.stop] == step.level).all()
        level_of[step.start : step.stop] += 1

    run(rng, plan, times, do)
    assert (level_of == times * links).all()


def test_many_sweeps_of_a_long_axis_go_in_blocks():
    heat = [[Footprint(a, a + 8, 8, True), Footprint(b - 8, b + 16, 8, False)]
            for a, b in ((10**6, 0), (0, 10**6))]  # fmt: skip
    plan = schedule(10_000, 4, needs_of(heat, 10_000), 1, bytes_an_index=16, cache=1 << 20)
    assert plan.sweeps == 128
    assert plan.slopes[3] == Reach(3, 3)
    assert plan.phases(640) == 10


def test_elementwise_sweeps_need_no_slope():
    alone = [[Footprint(0, 8, 8, True)]] * 2
    assert set(slopes(needs_of(alone, 100), 8)) == {Reach(0, 0)}


def test_what_moves_at_another_stride_can_not_be_followed():
    apart = [[Footprint(0, 8, 8, True), Footprint(0, 8, 16, False)]] * 2
    with pytest.raises(ValueError, match="strides"):
        needs_of(apart, 10)


def test_a_whole_array_that_is_written_can_not_be_followed():
    whole = [[Footprint(0, 80, 0, True), Footprint(500, 508, 8, True)]] * 2
    with pytest.raises(ValueError, match="strides"):
        needs_of(whole, 10)


@pytest.mark.parametrize("seed", range(25))
def test_a_reach_is_where_bytes_are_shared(seed):
    rng = random.Random(seed)
    stride = rng.randint(1, 9)
    one, other = (
        Footprint(low, low + rng.randint(1, 20), stride, True)
        for low in (rng.randint(-20, 20), rng.randint(-20, 20))
    )
    meeting = [
        j for j in range(-60, 60)
        if one.low < other.high + j * stride and other.low + j * stride < one.high
    ]  # fmt: skip
    reach = reach_of(one, other)
    if not meeting:
        assert reach is None
    else:
        assert reach == (max(0, -meeting[0]), max(0, meeting[-1]))

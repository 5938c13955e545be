"""Measuring by turns, and what comes of it."""

import time
from statistics import median
from typing import NamedTuple

from benchmarks.results import TIMES, duration

LEAST = 0.01  # seconds a turn
REST = 0.02  # before a turn: threads of the one before stop spinning


class Outcome(NamedTuple):
    """A promise, and what was found: a ratio, or what its unit says; None where there is none."""

    what: str
    found: float | None
    bar: float
    unit: str = TIMES
    detail: str = ""

    @property
    def held(self):
        return self.found is not None and self.found <= self.bar


def ratio(what, found, name, base, bar):
    """The outcome for one of the medians of `turns` against another."""
    detail = f"{duration(found[name])} against {duration(found[base])}"
    return Outcome(what, found[name] / found[base], bar, detail=detail)


def missing(what, bar, why):
    return Outcome(what, None, bar, detail=f"not available: {why}")


def turns(ways, rounds=15, before=None):
    """Median seconds a call, by name.

    Short ones are called many times a turn, and some before it that don't count: caches are then
    their own. ``before[name]()`` comes before each single call.
    """
    before = before or {}
    loops = {name: _loops(way, before.get(name)) for name, way in ways.items()}
    taken = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            time.sleep(REST)
            for _ in range(loops[name] // 4):
                way()
            if name in before:
                before[name]()
            taken[name].append(_seconds(way, loops[name]) / loops[name])
    return {name: median(each) for name, each in taken.items()}


def _loops(way, before):
    if before is not None:
        before()
        way()
        return 1
    way()
    once = min(_seconds(way, 1) for _ in range(5))
    return max(1, min(5000, int(LEAST / once)))


def _seconds(way, loops):
    began = time.perf_counter()
    for _ in range(loops):
        way()
    return time.perf_counter() - began

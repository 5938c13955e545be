"""Measuring by turns, and what comes of it."""

import time
from dataclasses import dataclass, field
from operator import truediv
from statistics import median

from benchmarks.results import TIMES, duration

LEAST = 0.01  # seconds a turn
REST = 0.02  # before a turn: threads of the one before stop spinning


@dataclass
class Outcome:
    """A promise, and what was measured of it: samples in its unit, or in seconds, with a base's.

    A sample and the base's with its number are of one round.
    """

    what: str
    bar: float
    samples: list[float] = field(default_factory=list)  # none where it can't be measured
    base: list[float] = field(default_factory=list)  # of what it is compared with
    unit: str = TIMES
    why: str = ""  # it can't be measured

    def add(self, other):
        """Take the samples of another pass."""
        self.samples += other.samples
        self.base += other.base

    @property
    def found(self):
        """The median of the samples, or of their ratios to the base's; None where there is none.

        Cores of a shared machine have one speed for seconds and then another: what is compared is
        what was found in the same second.
        """
        if not self.samples:
            return None
        base = self.base or [1.0] * len(self.samples)
        return median(map(truediv, self.samples, base))

    @property
    def held(self):
        return self.found is not None and self.found <= self.bar

    @property
    def detail(self):
        """What the figure comes of."""
        if not self.samples:
            return f"not available: {self.why}"
        if self.base:
            return f"{duration(median(self.samples))} against {duration(median(self.base))}"
        return f"{min(self.samples):.3g} to {max(self.samples):.3g}"


def ratio(what, found, name, base, bar):
    """The outcome for one of the ways of `turns` against another."""
    return Outcome(what, bar, found[name], found[base])


def turns(ways, rounds=5, before=None):
    """Seconds a call, one for each round, by name.

    Short ones are called many times a turn, and some before it that don't count: caches are then
    their own. Each round begins with another way, so that none always comes after the same one,
    which left the data in the caches of some core. ``before[name]()`` comes before each single
    call.
    """
    before = before or {}
    loops = {name: _loops(way, before.get(name)) for name, way in ways.items()}
    taken = {name: [] for name in ways}
    for number in range(rounds):
        for name in _from(number, list(ways)):
            way = ways[name]
            time.sleep(REST)
            for _ in range(loops[name] // 4):
                way()
            if name in before:
                before[name]()
            taken[name].append(_seconds(way, loops[name]) / loops[name])
    return taken


def _from(number, names):
    """The names in turn, from that number on."""
    first = number % len(names)
    return names[first:] + names[:first]


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

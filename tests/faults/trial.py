"""`Trial`: what a long trial counts, and the bars that its findings are held to."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field

import numpy as np

SCALE = float(os.environ.get("SHMCOMPUTE_SOAK", "1"))

# Trials by name, in the order of the report, with how many each takes; None: as there are.
DEATHS = "workers killed, crashed, stopped, exited"
RETRIES = "`retries=3`, workers killed"
PARENT = "parent killed"
GROUP = "process group killed"
INTERRUPTS = "Ctrl-C, single and three at once"
EXITS = "exits in random order of closing and dropping"
COMPILES = "interrupts while kernels are compiled"
RELOADS = "modules loaded again"
STOPPED = "users of a queue stopped"
PATCHED = "programs patched by gevent or eventlet"
HOSTILE = "programs that the system gives little"
FULL = "arrays around a full /dev/shm"
CALLS = "n-th system call fails"
TRAILERS = "damaged trailers"
MIXED = "seconds of mixed use"
RINGS = "calls by doorbell"
LOCKS = "lock holders killed"
QUEUE = "queue items, 4 producers and 4 consumers, one of each killed"
ATOMICS = "atomic adds, 8 processes at once"
BLOCKS = "workers of a Dask cluster killed during `applied`"
VERSIONS = "zarr arrays in place, a worker killed in each call"
LINKS = "links between hosts of a Dask cluster cut"
TRIALS: dict[str, int | None] = {
    DEATHS: 1000,
    RETRIES: 500,
    PARENT: 100,
    GROUP: 100,
    INTERRUPTS: 200,
    EXITS: 200,
    COMPILES: 400,
    RELOADS: 1000,
    STOPPED: 300,
    PATCHED: 60,
    HOSTILE: 150,
    FULL: 100,
    CALLS: None,
    TRAILERS: 100_000,
    MIXED: 600,
    RINGS: 2_000_000,
    LOCKS: 800,
    QUEUE: 3_000_000,
    ATOMICS: 8_000_000,
    BLOCKS: 100,
    VERSIONS: 100,
    LINKS: 12,
}


def scaled(count):
    """This many, or as small a part of it as was asked for."""
    return max(1, math.ceil(count * SCALE))


@dataclass
class Bar:
    """What must never be: a sum that is 0; or, with a unit, values that stay below a limit."""

    what: str
    values: list[float]
    most: float = 0.0
    unit: str = ""
    p99: float | None = None  # a limit for all but the worst hundredth

    @property
    def found(self):
        return max(self.values, default=0.0) if self.unit else sum(self.values)

    @property
    def found_p99(self):
        return float(np.quantile(self.values, 0.99)) if self.values else 0.0

    @property
    def held(self):
        return self.found <= self.most and (self.p99 is None or self.found_p99 <= self.p99)

    @property
    def told(self):
        if not self.unit:
            return f"{self.found:g} {self.what}"
        p99 = "" if self.p99 is None else f"p99 {self.found_p99:.3g} {self.unit}, "
        return f"{self.what} {p99}at most {self.found:.3g} {self.unit}"

    @property
    def asked(self):
        if not self.unit:
            return f"{self.most:g}"
        p99 = "" if self.p99 is None else f"p99 ≤ {self.p99:g} {self.unit}, "
        return f"{p99}≤ {self.most:g} {self.unit}"


@dataclass
class Trial:
    """One row of the report."""

    name: str
    count: int = 0
    among: dict[str, int] = field(default_factory=dict)  # what else was counted
    bars: dict[str, Bar] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)  # how tests of it ended that did not finish
    seconds: float = 0.0

    def times(self, count):
        """Count up to that many, or to the part of it that was asked for."""
        for number in range(scaled(count)):
            yield number
            self.count += 1

    def tell(self, what, times=1):
        """Count what has no bar."""
        self.among[what] = self.among.get(what, 0) + int(times)

    def never(self, what, times=0):
        """Count what must not be; with 0, say that it was looked for."""
        self.bars.setdefault(what, Bar(what, [0])).values[0] += int(times)

    def within(self, what, value, most, unit="s", p99=None):
        """Keep a value that has a limit."""
        self.bars.setdefault(what, Bar(what, [], most, unit, p99)).values.append(float(value))

    @property
    def held(self):
        return not self.broken and all(bar.held for bar in self.bars.values())

    @property
    def found(self):
        """All that was found, in words."""
        broken = [f"BROKE OFF: {how}" for how in self.broken]
        return "; ".join([*(bar.told for bar in self._sorted), *broken])

    @property
    def asked(self):
        """Its bars, in words."""
        return "; ".join(dict.fromkeys(bar.asked for bar in self._sorted))

    @property
    def _sorted(self):
        return sorted(self.bars.values(), key=lambda bar: bool(bar.unit))

    @property
    def size(self):
        """How many, and what is among them."""
        among = ", ".join(f"{number:,} {what}" for what, number in self.among.items())
        return f"{self.count:,}" + (f" ({among})" if among else "")

    def __enter__(self):
        self._began = time.monotonic()
        return self

    def __exit__(self, kind, error, trace):
        self.seconds += time.monotonic() - self._began
        if error is not None:
            self.broken.append(f"{kind.__name__}: {error}".splitlines()[0])
        else:
            assert self.held, self.found

"""Measure the topics and print each promise as it is looked at."""

import sys
import time
import warnings

import psutil

from benchmarks.bars import (
    algorithms,
    auto,
    clusters,
    costs,
    exchange,
    executor,
    files,
    huge_pages,
    neighbours,
    numpy_functions,
    off_costs,
    reductions,
    speed,
    sweeps,
    trace,
    wavefronts,
)
from benchmarks.results import QUIET

TOPICS = [
    speed.dispatch,
    speed.isolated,
    speed.stream,
    speed.compute,
    speed.python,
    speed.skewed,
    speed.chain,
    neighbours.blur,
    sweeps.heat_rows,
    sweeps.heat_planes,
    sweeps.heat_line,
    sweeps.jacobi,
    sweeps.fdtd,
    wavefronts.turn_about,
    wavefronts.smith_waterman,
    wavefronts.gauss_seidel,
    wavefronts.cholesky,
    algorithms.sort,
    algorithms.argsort,
    algorithms.select,
    algorithms.counts,
    numpy_functions.reductions,
    numpy_functions.moments,
    numpy_functions.cumulative,
    reductions.reduction,
    reductions.small_reduction,
    reductions.scan,
    auto.auto,
    executor.tasks,
    clusters.maps,
    clusters.halos,
    clusters.first_kernels,
    clusters.zarr_memory,
    files.larger_than_memory,
    exchange.queue,
    exchange.counter,
    costs.first_call,
    costs.wrap,
    huge_pages.huge,
    costs.start,
    costs.safety,
    off_costs.off_costs,
    trace.trace,
    costs.lost,
    costs.imports,
    costs.idle,
]


PASSES = 3


def main():
    words = sys.argv[1:]
    names = {topic.__name__: topic for topic in TOPICS}
    if unknown := set(words) - set(names):
        sys.exit(f"no topic {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    topics = [Topic(measure) for name, measure in names.items() if not words or name in words]
    for number in range(PASSES):
        last = number == PASSES - 1
        if last:
            print(f"{'what':58} {'found':>12} {'bar':>12}")
        for topic in topics:
            topic.measure()
            if last:
                topic.tell()
    print(f"{time.perf_counter() - began:.0f} s")


class Topic:
    """Its outcomes, and what other programs took of the processors meanwhile."""

    def __init__(self, measure):
        self._measure = measure
        self._outcomes = {}
        self._busy = 0.0

    def measure(self):
        """Once more."""
        before = psutil.cpu_percent(interval=0.5)
        for outcome in self._measure():
            if outcome.what in self._outcomes:
                self._outcomes[outcome.what].add(outcome)
            else:
                self._outcomes[outcome.what] = outcome
        self._busy = max(self._busy, before, psutil.cpu_percent(interval=0.5))

    def tell(self):
        doubt = "?" if self._busy >= QUIET else ""
        for outcome in self._outcomes.values():
            print(_line(outcome, doubt), flush=True)
        if doubt:
            print(f"  ?: others took up to {self._busy:.0f} % of the processors", flush=True)


def _line(outcome, doubt):
    bar = f"{outcome.bar:g}{outcome.unit}"
    if outcome.found is None:
        return f"{outcome.what:58} {'-':>12} {bar:>12}            {outcome.detail}"
    found = f"{outcome.found:.3g}{outcome.unit}"
    held = ("held" if outcome.held else "NOT HELD") + doubt
    return f"{outcome.what:58} {found:>12} {bar:>12}  {held:9} {outcome.detail}"


if __name__ == "__main__":
    main()

"""Measure the topics and print each promise as it is looked at."""

import sys
import time
import warnings

import psutil

from benchmarks.bars import costs, exchange, executor, speed
from benchmarks.results import QUIET

TOPICS = [
    speed.dispatch,
    speed.isolated,
    speed.stream,
    speed.compute,
    speed.python,
    speed.skewed,
    speed.chain,
    executor.tasks,
    exchange.queue,
    exchange.counter,
    costs.first_call,
    costs.wrap,
    costs.start,
    costs.safety,
    costs.lost,
    costs.imports,
    costs.idle,
]


def main():
    words = sys.argv[1:]
    names = {topic.__name__: topic for topic in TOPICS}
    if unknown := set(words) - set(names):
        sys.exit(f"no topic {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    warnings.simplefilter("ignore")
    began = time.perf_counter()
    print(f"{'what':58} {'found':>12} {'bar':>12}")
    for name, topic in names.items():
        if not words or name in words:
            before = psutil.cpu_percent(interval=0.5)
            outcomes = list(topic())
            busy = max(before, psutil.cpu_percent(interval=0.5))
            for outcome in outcomes:
                print(_line(outcome, "?" if busy >= QUIET else ""), flush=True)
            if busy >= QUIET:
                print(f"  ?: others took up to {busy:.0f} % of the processors", flush=True)
    print(f"{time.perf_counter() - began:.0f} s")


def _line(outcome, doubt):
    bar = f"{outcome.bar:g}{outcome.unit}"
    if outcome.found is None:
        return f"{outcome.what:58} {'-':>12} {bar:>12}            {outcome.detail}"
    found = f"{outcome.found:.3g}{outcome.unit}"
    held = ("held" if outcome.held else "NOT HELD") + doubt
    return f"{outcome.what:58} {found:>12} {bar:>12}  {held:9} {outcome.detail}"


if __name__ == "__main__":
    main()

"""Topics of what processes exchange: queues and counters, against the standard library's."""

from contextlib import ExitStack

from benchmarks.bars.turns import ratio, turns
from benchmarks.patterns import PATTERNS

QUEUES = {"mp.Queue": 0.1, "mp.Pipe": 1 / 3}


def queue():
    """Arrays of 1 MiB from a producer to a consumer."""
    found = _taken("queue of 1 MiB")
    for base, bar in QUEUES.items():
        for name in sorted(found.keys() - QUEUES.keys()):
            what = name.removeprefix("shmcompute ")
            yield ratio(f"queue of 1 MiB, {what} / {base}", found, name, base, bar)


def counter():
    """Four processes, 10 000 increments each."""
    found = _taken("counter of four processes")
    base, name = "mp.Value, its lock", "shmcompute atomic_add in a kernel"
    yield ratio("counter, atomic_add in a kernel / mp.Value", found, name, base, 0.05)


def _taken(group):
    with ExitStack() as opened:
        ways = {name: opened.enter_context(way.start()) for name, way in PATTERNS[group].items()}
        return turns(ways, 3, dict.fromkeys(ways, lambda: None))

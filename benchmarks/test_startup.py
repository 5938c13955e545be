"""From nothing to the first result, with two workers."""

import pytest

from benchmarks import startup
from benchmarks.peers import PEERS
from benchmarks.settings import SMOKE

_elapsed = 0.0


def clock():
    """Runs only while a start is measured, in the other process."""
    return _elapsed


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize("name", startup.STARTS)
def test_startup(benchmark, name):
    """How long it takes; `startup` looks at the result."""
    benchmark.group, benchmark.name = "start-up", name
    if PEERS[name].missing:
        pytest.skip(f"{name}: {PEERS[name].module} is not installed")

    def start():
        global _elapsed
        _elapsed += startup.seconds(name)

    benchmark.pedantic(start, rounds=1 if SMOKE else 3)

"""Every pattern of the standard library, by it and by us; see `patterns`."""

import pytest

from benchmarks.patterns import PATTERNS

PAIRS = [(group, name) for group, ways in PATTERNS.items() for name in ways]


@pytest.mark.parametrize(("group", "name"), PAIRS, ids=map("-".join, PAIRS))
def test_pattern(benchmark, measure, group, name):
    """How long it takes, and that it did what it should."""
    benchmark.group, benchmark.name = group, name
    way = PATTERNS[group][name]
    with way.start() as work:
        measure(work)
        assert work() == way.expected

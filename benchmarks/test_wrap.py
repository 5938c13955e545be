"""What it costs to make an array one that processes share."""

import numpy as np
import pytest

from benchmarks.settings import ELEMENTS, MIB
from benchmarks.wraps import WRAPS, Wrapped


@pytest.fixture(scope="module")
def source():
    return np.linspace(0.0, 1.0, ELEMENTS)


@pytest.mark.parametrize("name", WRAPS)
def test_wrap(benchmark, name, source):
    """How long until the copy is there, once the last one is gone."""
    benchmark.group, benchmark.name = "wrap cost", name
    wrapped = Wrapped(WRAPS[name], source)
    rounds = 7 if MIB > 128 else 15
    benchmark.pedantic(wrapped, setup=wrapped.prepare, rounds=rounds, warmup_rounds=2)

    assert np.array_equal(wrapped.array, source)
    wrapped.prepare()

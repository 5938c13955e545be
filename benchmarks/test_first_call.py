"""The first call of a kernel that nobody has seen before."""

from itertools import count

import numpy as np
import pytest

from benchmarks import kernels
from benchmarks.first_calls import FIRST_CALLS, JOB
from benchmarks.settings import SMOKE

numbers = count(1)


@pytest.mark.parametrize("name", FIRST_CALLS)
def test_first_call(benchmark, name):
    """How long it takes with all that must be compiled, where workers have run another one."""
    benchmark.group, benchmark.name = "first call", name
    with FIRST_CALLS[name]() as (array, call):
        called = []

        def fresh():
            array[...] = JOB.data
            called.append(next(numbers))
            return (kernels.fresh(called[-1]),), {}

        benchmark.pedantic(call, setup=fresh, rounds=2 if SMOKE else 7, warmup_rounds=2)
        assert np.array_equal(array, JOB.data * 0.5 + called[-1])

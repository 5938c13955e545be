"""Four streaming kernels, one after the other or together."""

import numpy as np
import pytest

from benchmarks import kernels
from benchmarks.chains import chains, missing
from benchmarks.settings import ELEMENTS, LONGEST

CHAINS = chains()


@pytest.fixture(scope="module")
def data():
    return np.linspace(0.1, 0.9, ELEMENTS)


@pytest.fixture(scope="module")
def expected(data):
    result = data.copy()
    kernels.chain_numpy(result)
    return result


@pytest.mark.benchmark(min_rounds=7, max_time=LONGEST)
@pytest.mark.parametrize("name", CHAINS)
def test_chain(benchmark, measure, name, data, expected):
    """How long it takes, and that the result is NumPy's, bit for bit."""
    benchmark.group, benchmark.name = "chain of four", name
    if reason := missing(name):
        pytest.skip(f"{name}: {reason}")
    with CHAINS[name](data.shape) as (array, run):
        array[...] = data
        run()
        measure(run)

        array[...] = data
        run()
        assert np.array_equal(array, expected)

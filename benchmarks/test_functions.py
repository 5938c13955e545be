"""Sums, sorts and a blur: NumPy's functions on a SharedArray, and other libraries' functions."""

import numba as nb
import numpy as np
import pytest

from benchmarks.functions import JOBS, PEERS, missing
from benchmarks.settings import LONGEST, WORKERS

PAIRS = [(name, way) for name, job in JOBS.items() for way in job.ways]


@pytest.fixture(scope="module")
def of_numpy():
    """The arrays, and what the first of the others finds for them."""
    found = {}

    def of(name):
        if name not in found:
            data = JOBS[name].data()
            found[name] = data, np.asarray(JOBS[name].ways[1].call(data))
        return found[name]

    return of


@pytest.mark.benchmark(min_rounds=5, max_time=LONGEST)
@pytest.mark.parametrize(("name", "way"), PAIRS, ids=[f"{name}-{way.peer}" for name, way in PAIRS])
def test_function(benchmark, measure, name, way, of_numpy):
    """How long it takes, and that the result is NumPy's, but for roundings."""
    benchmark.group, benchmark.name = name, way.peer
    if reason := missing(way.peer):
        pytest.skip(reason)
    nb.set_num_threads(WORKERS)
    peer, (data, expected) = PEERS[way.peer], of_numpy(name)
    array = peer.array(data)
    found = peer.result(way.call(array))
    if name == "blur":  # the edges of prange's are not told
        found, expected = found[1:-1, 1:-1], expected[1:-1, 1:-1]
    np.testing.assert_allclose(found, expected, rtol=1e-3 if name == "blur" else 1e-9)
    measure(lambda: peer.result(way.call(array)))
    if hasattr(array, "close"):
        array.close()

"""Every job by every peer; `conftest.py` pairs them."""

import numpy as np
import pytest

from benchmarks.settings import LONGEST


@pytest.mark.benchmark(min_rounds=7, max_time=LONGEST)
def test_job(measure, job, peer):
    """How long it takes, and that the result is NumPy's, bit for bit."""
    measure(peer.run)

    # Not what the measurement left, for it ran as often as it liked.
    peer.array[...] = job.data
    peer.run()
    assert np.array_equal(peer.array, job.expected)

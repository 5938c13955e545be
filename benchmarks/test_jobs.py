"""Every job by every peer; `conftest.py` pairs them."""

import numpy as np


def test_job(benchmark, job, peer):
    """How long it takes, and that the result is NumPy's, bit for bit."""
    benchmark(peer.run)

    # Not what the measurement left, for it ran as often as it liked.
    peer.array[...] = job.data
    peer.run()
    assert np.array_equal(peer.array, job.expected)

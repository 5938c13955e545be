"""Response times in a file on disk: sorted in place by all cores, and their quantiles.

The file is a plain `.npy`; any program can map it, before and after.
"""

import tempfile
from pathlib import Path

import numpy as np

import shmcompute as sc

REQUESTS = 500_000

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "milliseconds.npy")
    np.save(path, np.random.default_rng(3).lognormal(3, 1, REQUESTS))

    with sc.SharedArray.open(path) as times:
        median, worst = np.percentile(times, [50, 99])
        print(f"half of {len(times)} took below {median:.1f} ms, one of 100 above {worst:.0f}")
        sc.parallel_sort(times)

    stored = np.load(path)
    print(f"the file is sorted: {bool((np.diff(stored) >= 0).all())}")
    print(f"the quickest 3: {stored[:3].round(2)}")

"""The mean of a million measurements, by the station that made them: what `GROUP BY` does.

NumPy's functions take a `SharedArray`, and count on all cores: each thread in bins of its own.
"""

import numpy as np

import shmcompute as sc

ROWS, STATIONS = 1_000_000, 5

rng = np.random.default_rng(1)
stations = rng.integers(0, STATIONS, ROWS)
celsius = 10 + 3 * stations + rng.normal(0, 2, ROWS)
with sc.SharedArray(stations) as station, sc.SharedArray(celsius) as temperature:
    counts = np.bincount(station, minlength=STATIONS)
    means = np.bincount(station, weights=temperature, minlength=STATIONS) / counts
    for number, (count, mean) in enumerate(zip(counts, means, strict=True)):
        print(f"station {number}: {count} measurements, {mean:.1f} degrees")
    print(f"all: {counts.sum()}")

"""The same jobs by NumPy, by Numba, by hand on `multiprocessing`, and by shmcompute.

``pytest benchmarks --benchmark-enable --benchmark-only`` measures, ``pytest benchmarks`` only
compares the results; ``SHMCOMPUTE_BENCH_MIB=1`` makes a smoke run of either.
"""

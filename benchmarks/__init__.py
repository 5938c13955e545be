"""The same jobs by NumPy, Numba, the standard library, other libraries, and by shmcompute.

``tox run -e bench`` measures and renews the table and the plot in the README;
``pytest benchmarks`` only compares the results with NumPy's; ``SHMCOMPUTE_BENCH_MIB=1`` makes a
smoke run of either. ``python -m benchmarks.bars`` looks at what this project promises of speed.
"""

"""``python -m benchmarks.bars [WORD ...]``: what this project promises of speed, measured now.

A quick look while one works, in one process: ways that are compared take turns, so that what else
the machine does meets them alike. Two workers. ``SHMCOMPUTE_BENCH_MIB`` changes the size of large
arrays, which is 512 here; words choose topics.
"""

"""``python -m benchmarks.bars [WORD ...]``: what this project promises of speed, measured now.

A quick look while one works, in one process: ways that are compared take turns, so that what else
the machine does meets them alike, and all topics are gone through several times, with pools and
arrays of their own, so that no figure is that of one moment. Two workers.
``SHMCOMPUTE_BENCH_MIB`` changes the size of large arrays, which is 512 here; words choose topics.
"""

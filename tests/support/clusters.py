"""Pools of the workers of a Dask cluster, for several files of tests."""

from contextlib import contextmanager

import leaks
import numpy as np

import shmcompute as sc


@contextmanager
def dask_pool():
    """One with a cluster of its own; that Dask keeps a thread or two is no leak."""
    with leaks.kept():
        pool = sc.Pool(2, backend="dask").ready()
        pool.submit(int).result(60)
        sc.parallel_apply(np.negative, np.zeros(4), pool=pool)
    with pool:
        yield pool

"""One program under all three start methods."""

import multiprocessing

import numpy as np

import shmcompute as sc


def mean(part):
    return float(np.mean(part))


def standard_library(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        return pool.map(mean, np.split(np.arange(8.0), 2))  # sends the parts


def with_shmcompute(method):
    with sc.SharedArray(np.arange(8.0)) as array, sc.Pool(2, start_method=method) as pool:
        return list(pool.map(mean, np.split(array.array, 2)))  # sends handles


if __name__ == "__main__":  # the standard library's form needs this guard; ours does not
    for method in ("fork", "spawn", "forkserver"):
        print(method, standard_library(method), with_shmcompute(method))

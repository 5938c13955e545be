"""A matrix product, block by block: two axes are cut, and each matrix says along which it goes.

A block of `c` needs its rows of `a` and its columns of `b`. The kernel goes through them in slices
of `DEPTH`, so that what it uses again and again stays in a core's cache. Blocks are dealt so that
each worker goes along a row of them, and finds its rows of `a` there.
"""

import numba as nb
import numpy as np

import shmcompute as sc

ROWS, INNER, COLUMNS, DEPTH = 500, 400, 600, 64


@nb.njit
def multiply(c, a, b):
    c[:] = 0.0
    for first in range(0, a.shape[1], DEPTH):
        last = min(first + DEPTH, a.shape[1])
        for i in range(c.shape[0]):
            for k in range(first, last):
                factor = a[i, k]
                for j in range(c.shape[1]):
                    c[i, j] += factor * b[k, j]


@nb.njit
def fill(part, corner):
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            part[i, j] = np.sin(corner[0] + i) + 0.01 * (corner[1] + j)


with (
    sc.SharedArray.empty((ROWS, INNER)) as a,
    sc.SharedArray.empty((INNER, COLUMNS)) as b,
    sc.SharedArray.empty((ROWS, COLUMNS)) as c,
):
    for matrix in (a, b):
        sc.parallel_apply(fill, sc.write(matrix), sc.offset, axis=(0, 1))
    panels = sc.read(a, axis=(0, None)), sc.read(b, axis=(None, 1))
    product = sc.plan(multiply, sc.write(c), *panels, axis=(0, 1), chunksize=(128, 128))
    product()
    start, stop = product.chunks[-1]
    print(f"{len(product.chunks)} blocks, the last from {start} to {stop}")
    print(f"NumPy finds the same: {np.allclose(c.array, a.array @ b.array)}")

    # The transposed product, of views that are transposed: no element is copied.
    turned = sc.read(b.T, axis=(0, None)), sc.read(a.T, axis=(None, 1))
    with sc.SharedArray.empty((COLUMNS, ROWS)) as d:
        sc.parallel_apply(multiply, sc.write(d), *turned, axis=(0, 1))
        print(f"and turned: {np.allclose(d.array, c.array.T)}")

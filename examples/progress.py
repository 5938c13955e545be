"""How far is it? Bars of long calls, and a callable of one's own that gives up in time."""

from math import sqrt

import numba as nb
import numpy as np

import shmcompute as sc

SIDE, STEPS = 300, 300


@nb.njit
def mandelbrot(rows, first):
    """How many steps each point of the plane stays near 0."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            point = complex(3.0 * j / SIDE - 2.2, 3.0 * (first + i) / SIDE - 1.5)
            z, n = 0j, 0
            while n < STEPS and z.real * z.real + z.imag * z.imag < 4.0:
                z = z * z + point
                n += 1
            rows[i, j] = n


class Quarters:
    """Prints a line at each quarter: any callable (done, total) will do, in the calling thread."""

    def __init__(self):
        self.told = 0

    def __call__(self, done, total):
        while self.told < 4 * done // total:
            self.told += 1
            print(f"{25 * self.told} % of {total} chunks")


def enough(done, total):
    if done >= total // 2:
        raise TimeoutError("half of it will do")


with sc.SharedArray.zeros((SIDE, SIDE), np.int32) as plane:
    # A bar in a terminal or notebook; in a file a line now and then, if it takes seconds.
    sc.parallel_apply(mandelbrot, plane, sc.offset, progress="Mandelbrot's set")
    print(f"{(plane.array == STEPS).mean():.1%} of the points stay")

    sc.parallel_apply(mandelbrot, plane, sc.offset, chunksize=10, progress=Quarters())

    plane[:] = -1
    try:
        sc.parallel_apply(mandelbrot, plane, sc.offset, chunksize=10, progress=enough)
    except TimeoutError as error:  # what the callable raised; nobody writes any more
        print(f"{error}; it has that: {(plane.array[::10, 0] >= 0).sum() >= 30}")

with sc.Pool(2, backend="threads") as pool:
    roots = list(pool.imap(sqrt, range(1000), chunksize=50, progress="roots"))
print(f"{len(roots)} roots, the last {roots[-1]:.3f}")

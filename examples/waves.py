"""A wave in a box of air (FDTD): velocity follows pressure, pressure follows velocity.

A chain of two kernels is swept over the arrays again and again, in place. Each kernel sees the
neighbours that it names, so many sweeps go over a slab of rows while it is in a core's cache.
With the name of a picture as its argument the program draws one.
"""

import sys

import numba as nb
import numpy as np

import shmcompute as sc

SIDE, SWEEPS, COURANT = 81, 60, 0.5
SHADES = "@#*+-. .-+*#@"


@nb.njit
def accelerate(across, along, pressure, below):
    for i in range(pressure.shape[0]):
        for j in range(pressure.shape[1]):
            along[i, j] -= COURANT * (below[i, j] - pressure[i, j])
            if j + 1 < pressure.shape[1]:
                across[i, j] -= COURANT * (pressure[i, j + 1] - pressure[i, j])


@nb.njit
def compress(pressure, across, along, above):
    for i in range(pressure.shape[0]):
        for j in range(1, pressure.shape[1]):
            flow = across[i, j] - across[i, j - 1] + along[i, j] - above[i, j]
            pressure[i, j] -= COURANT * flow


start = np.zeros((SIDE, SIDE))
start[SIDE // 2 - 2 : SIDE // 2 + 3, SIDE // 2 - 2 : SIDE // 2 + 3] = 1.0
with (
    sc.SharedArray(start) as pressure,
    sc.SharedArray.zeros((SIDE, SIDE)) as across,
    sc.SharedArray.zeros((SIDE, SIDE)) as along,
):
    rows, below = slice(1, -1), slice(2, None)
    here, under, flow = sc.read(pressure[rows]), sc.read(pressure[below]), sc.read(along[rows])
    speed_up = accelerate, across[rows], along[rows], here, under
    squeeze = compress, pressure[rows], sc.read(across[rows]), flow, sc.read(along[:-2])
    sc.parallel_iterate([speed_up, squeeze], times=SWEEPS)
    for row in pressure[:: SIDE // 14, :: SIDE // 40]:
        shade = (row / abs(pressure.array).max() * 6 + 6.5).astype(int)
        print("  " + "".join(SHADES[s] for s in shade))
    print(f"as much as there was: {np.isclose(pressure.array.sum(), start.sum())}")
    if sys.argv[1:]:
        from matplotlib.image import imsave

        imsave(sys.argv[1], pressure.array.repeat(4, axis=0).repeat(4, axis=1), cmap="RdBu")

"""A wave in a box of air (FDTD): velocity follows pressure, pressure follows velocity.

A chain of two kernels is swept over the arrays again and again, in place. Each kernel sees the
neighbours that it names, so many sweeps go over a slab of rows while it is in a core's cache.
"""

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


def main():
    start = np.zeros((SIDE, SIDE))
    start[SIDE // 2 - 2 : SIDE // 2 + 3, SIDE // 2 - 2 : SIDE // 2 + 3] = 1.0
    with (
        sc.SharedArray(start) as pressure,
        sc.SharedArray.zeros((SIDE, SIDE)) as across,
        sc.SharedArray.zeros((SIDE, SIDE)) as along,
    ):
        inner = slice(1, -1)
        sc.parallel_iterate(
            [
                (
                    accelerate,
                    across[inner],
                    along[inner],
                    sc.read(pressure[inner]),
                    sc.read(pressure[2:]),
                ),
                (
                    compress,
                    pressure[inner],
                    sc.read(across[inner]),
                    sc.read(along[inner]),
                    sc.read(along[:-2]),
                ),
            ],
            times=SWEEPS,
        )
        for row in pressure[:: SIDE // 14, :: SIDE // 40]:
            shade = (row / abs(pressure.array).max() * 6 + 6.5).astype(int)
            print("  " + "".join(SHADES[s] for s in shade))
        print(f"as much as there was: {np.isclose(pressure.array.sum(), start.sum())}")


if __name__ == "__main__":
    main()

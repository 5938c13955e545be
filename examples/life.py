"""Conway's Game of Life on a torus: each cell sees its neighbours, around all four edges.

`halo` gives a chunk a row more on each side; with ``boundary="wrap"`` those beyond the first row
are the last ones. Along the rows the kernel wraps by itself. With the name of a picture as its
argument the program draws one.
"""

import sys

import numba as nb
import numpy as np

import shmcompute as sc

SIDE, GENERATIONS = 96, 4 * 96
GLIDER = [[0, 1, 0], [0, 0, 1], [1, 1, 1]]


@nb.njit
def live(new, old):
    rows, columns = new.shape
    for i in range(rows):
        for j in range(columns):
            left, right = j - 1, (j + 1) % columns
            around = old[i, left] + old[i, j] + old[i, right] + old[i + 1, left]
            around += old[i + 1, right] + old[i + 2, left] + old[i + 2, j] + old[i + 2, right]
            new[i, j] = around == 3 or (around == 2 and old[i + 1, j])


def run(start, generations):
    with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
        around = sc.halo(old, 1, boundary="wrap")
        return sc.parallel_iterate(live, new, around, times=generations, swap=(old, new)).array


# A glider moves one cell a way in four generations, so it comes home after 4 * SIDE.
world = np.zeros((SIDE, SIDE), np.uint8)
world[:3, :3] = GLIDER
print(f"the glider went around the world: {np.array_equal(run(world, GENERATIONS), world)}")

soup = (np.random.default_rng(1970).random((SIDE, SIDE)) < 0.3).astype(np.uint8)
later = run(soup, GENERATIONS)
expected = soup
for _ in range(GENERATIONS):
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    around = sum(np.roll(expected, shift, axis=(0, 1)) for shift in shifts)
    expected = ((around == 3) | ((around == 2) & (expected == 1))).astype(np.uint8)
print(f"{soup.sum()} cells lived, {GENERATIONS} generations later {later.sum()}")
print(f"NumPy finds the same: {np.array_equal(later, expected)}")

if sys.argv[1:]:
    from matplotlib.image import imsave

    imsave(sys.argv[1], later.repeat(4, axis=0).repeat(4, axis=1), cmap="binary")

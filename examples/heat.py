"""Heat in a plate whose upper edge is hot: a thousand sweeps, in blocks of time.

`parallel_iterate` repeats a call within the workers; after each sweep the two arrays change places.
The kernel says what it sees: its own rows of `new`, and of `old` the rows above, beside and below.
So slabs of rows go through many sweeps while they are in a core's cache. With the name of a picture
as its argument the program draws one.
"""

import sys

import numba as nb
import numpy as np

import shmcompute as sc

SIDE, SWEEPS = 60, 1000
SHADES = " .:-=+*#%@"


@nb.njit
def spread(new, above, here, below):
    for i in range(new.shape[0]):
        for j in range(1, new.shape[1] - 1):
            around = above[i, j] + below[i, j] + here[i, j - 1] + here[i, j + 1]
            new[i, j] = 0.25 * around


start = np.zeros((SIDE, SIDE))
start[0] = 100.0
with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
    above, here, below = (sc.read(old[i : SIDE - 2 + i]) for i in range(3))
    field = sc.parallel_iterate(
        spread, new[1:-1], above, here, below, times=SWEEPS, swap=(old, new)
    )
    print(f"after {SWEEPS} sweeps:")
    for row in field[:: SIDE // 10, :: SIDE // 30]:
        print("  " + "".join(SHADES[int(heat / 100 * 9.99)] for heat in row))

    expected = start.copy()
    for _ in range(SWEEPS):
        around = expected[:-2, 1:-1] + expected[2:, 1:-1]
        around += expected[1:-1, :-2] + expected[1:-1, 2:]
        expected[1:-1, 1:-1] = 0.25 * around
    print(f"NumPy finds the same: {np.allclose(field.array, expected, rtol=1e-12)}")
    if sys.argv[1:]:
        from matplotlib.image import imsave

        imsave(sys.argv[1], field.array.repeat(6, axis=0).repeat(6, axis=1), cmap="inferno")

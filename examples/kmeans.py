"""k-means: points find their nearest centre, centres move to the mean of their points.

One pass over the points does both: `parallel_reduce` adds up what the kernel returns for each
chunk, an array of sums and counts. The result has the same bits for any number of workers. With
the name of a picture as its argument the program draws one.
"""

import sys

import numba as nb
import numpy as np

import shmcompute as sc

POINTS, PASSES = 100_000, 25
TRUE = np.array([[-4.0, -3.0], [1.0, 4.0], [4.0, -2.0], [6.0, 5.0]])


@nb.njit
def assign(points, labels, centres):
    sums = np.zeros((len(centres), 3))  # of x, of y, and how many
    for i in range(len(points)):
        x, y = points[i]
        nearest = np.argmin((centres[:, 0] - x) ** 2 + (centres[:, 1] - y) ** 2)
        labels[i] = nearest
        sums[nearest] += np.array([x, y, 1.0])
    return sums


rng = np.random.default_rng(8)
data = TRUE[rng.integers(0, len(TRUE), POINTS)] + rng.normal(0, 1, (POINTS, 2))
centres = data[:1]  # as far as can be from those that there are
while len(centres) < len(TRUE):
    away = np.linalg.norm(data[:, None] - centres, axis=2).min(axis=1)
    centres = np.vstack([centres, data[away.argmax()]])

with sc.SharedArray(data) as points, sc.SharedArray.zeros(POINTS, "i1") as labels:
    for _ in range(PASSES):
        sums = sc.parallel_reduce(
            assign, sc.read(points), sc.write(labels), sc.whole(centres), combine=np.add
        )
        centres = sums[:, :2] / sums[:, 2:]
    for (x, y), count in zip(centres, np.bincount(labels), strict=True):
        print(f"{count} points around ({x:.1f}, {y:.1f})")
    away = np.linalg.norm(TRUE[:, None] - centres, axis=2).min(axis=1)
    print(f"the true centres are found: {bool((away < 0.1).all())}")
    if sys.argv[1:]:
        import matplotlib.pyplot as plt

        plt.scatter(*points[::20].T, c=labels[::20], s=3, cmap="Set2")
        plt.plot(*centres.T, "k+", markersize=15)
        plt.savefig(sys.argv[1])

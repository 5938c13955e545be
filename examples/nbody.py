"""A cold cloud of stars that falls together: positions and velocities, step after step.

A chain of two kernels is swept: `kick` sees where all stars are and changes the velocities of its
own, `drift` moves its own. Each kernel goes over all stars before the next one does. With the name
of a picture as its argument the program draws one.
"""

import sys

import numba as nb
import numpy as np

import shmcompute as sc

STARS, STEPS, STEP, SOFTENING = 400, 300, 0.005, 0.05


@nb.njit
def kick(velocities, own, stars):
    for i in range(own.shape[0]):
        x, y, z = 0.0, 0.0, 0.0
        for j in range(stars.shape[0]):
            dx, dy, dz = stars[j, 0] - own[i, 0], stars[j, 1] - own[i, 1], stars[j, 2] - own[i, 2]
            strength = (dx * dx + dy * dy + dz * dz + SOFTENING**2) ** -1.5 / len(stars)
            x, y, z = x + strength * dx, y + strength * dy, z + strength * dz
        velocities[i] += STEP * np.array([x, y, z])


@nb.njit
def drift(stars, velocities):
    for i in range(stars.shape[0]):
        for axis in range(3):
            stars[i, axis] += STEP * velocities[i, axis]


def energy(stars, velocities):
    away = np.sqrt(((stars[:, None] - stars) ** 2).sum(axis=2) + SOFTENING**2)
    pairs = (1 / away).sum() - STARS / SOFTENING
    return (velocities**2).sum() / 2 / STARS - pairs / 2 / STARS**2


rng = np.random.default_rng(3)
directions = rng.normal(size=(STARS, 3))
cloud = directions / np.linalg.norm(directions, axis=1)[:, None] * rng.random((STARS, 1)) ** (1 / 3)
with sc.SharedArray(cloud) as stars, sc.SharedArray.zeros((STARS, 3)) as speeds:
    first = energy(stars.array, speeds.array)
    pull, move = (kick, speeds, sc.read(stars), sc.whole(stars)), (drift, stars, sc.read(speeds))
    sc.parallel_iterate([pull, move], times=STEPS)
    change = energy(stars.array, speeds.array) / first - 1
    radii = [np.median(np.linalg.norm(where, axis=1)) for where in (cloud, stars.array)]
    print(f"half of the stars were within {radii[0]:.2f}, and are now within {radii[1]:.2f}")
    kept = abs(change) < 0.02, np.allclose(speeds.sum(axis=0), 0)
    print(f"energy is kept: {kept[0]}, momentum: {kept[1]}")
    if sys.argv[1:]:
        import matplotlib.pyplot as plt

        plt.scatter(*cloud[:, :2].T, s=2, c="lightgray")
        plt.scatter(*stars[:, :2].T, s=2)
        plt.savefig(sys.argv[1])

"""An own Numba kernel with several arrays and scalars: gravity among a few thousand stars.

Each chunk writes the accelerations of its own stars (split), from their positions (read) and those
of all the others (whole); `offset` tells it which of all the stars its own are.
"""

import numba as nb
import numpy as np

import shmcompute as sc

STARS = 3_000
SOFTENING = 1e-3


@nb.njit
def attract(pull, own, stars, masses, softening, first):
    for i in range(own.shape[0]):
        for axis in range(3):
            pull[i, axis] = 0.0
        for j in range(stars.shape[0]):
            if j == first + i:
                continue  # no star pulls itself
            dx = stars[j, 0] - own[i, 0]
            dy = stars[j, 1] - own[i, 1]
            dz = stars[j, 2] - own[i, 2]
            strength = masses[j] / (dx * dx + dy * dy + dz * dz + softening**2) ** 1.5
            pull[i, 0] += strength * dx
            pull[i, 1] += strength * dy
            pull[i, 2] += strength * dz


rng = np.random.default_rng(1)
masses = rng.uniform(0.5, 2.0, STARS)

with (
    sc.SharedArray(rng.normal(size=(STARS, 3))) as stars,
    sc.SharedArray.empty((STARS, 3)) as pull,
):
    # A small table need not be shared to be whole(): each worker is sent a copy.
    sc.parallel_apply(
        attract, pull, sc.read(stars), sc.whole(stars), sc.whole(masses), SOFTENING, sc.offset
    )

    # The same for one star by NumPy; its own term is zero.
    away = stars - stars[0]
    first = masses / ((away**2).sum(axis=1) + SOFTENING**2) ** 1.5 @ away
    print(f"{len(stars)} stars; the first is pulled towards {pull[0].round(1)}")
    assert np.allclose(pull[0], first)

    # To every action there is an equal reaction: the forces add up to nothing.
    force = masses @ pull
    print("forces add up to nothing:", np.allclose(force, 0, atol=1e-6))
    assert np.allclose(force, 0, atol=1e-6)

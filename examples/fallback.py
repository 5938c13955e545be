"""Where there is no room in /dev/shm: the same arrays on a `multiprocessing.Array`.

`storage="auto"`, the default, takes this way by itself where it must, and says so once.
"""

import numpy as np

import shmcompute as sc

rng = np.random.default_rng(3)
east, north = rng.normal(size=(2, 365, 100, 100))


def wind_speed(storage):
    with (
        sc.SharedArray(east, storage=storage) as u,
        sc.SharedArray(north, storage=storage) as v,
        sc.SharedArray.empty(u.shape, storage=storage) as speed,
    ):
        # A ufunc is a kernel too: it writes the first split argument.
        sc.parallel_apply(np.hypot, speed, sc.read(u), sc.read(v))
        print(f"storage={speed.storage!r}: mean speed {np.mean(speed):.4f} m/s")
        # This copy outlives the block; nothing else is left of it.
        return speed.array.copy()


shared = wind_speed("shm")
fallen_back = wind_speed("array")

print("same result, bit for bit:", np.array_equal(shared, fallen_back))
assert np.array_equal(shared, fallen_back)
assert np.array_equal(shared, np.hypot(east, north))

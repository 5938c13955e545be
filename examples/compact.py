"""Prefix sums to compact an array: what passes a test moves together, in order.

An element's new place is the number of those before it that pass, which is an exclusive prefix
sum of the flags. Then each chunk can write where its elements belong, with no lock: no two have
one place. (NumPy's `x[x > limit]` does so for one test; the pattern is for more than that.)
"""

import numba as nb
import numpy as np

import shmcompute as sc

EVENTS, LIMIT = 1_000_000, 3.5


@nb.njit
def flag(flags, energies, limit):
    for i in range(len(flags)):
        flags[i] = energies[i] > limit


@nb.njit
def move(energies, places, kept, times, limit, first):
    for i in range(len(energies)):
        if energies[i] > limit:
            kept[places[i]] = energies[i]
            times[places[i]] = first + i


rng = np.random.default_rng(4)
with sc.SharedArray(rng.exponential(1.0, EVENTS)) as energies:
    with sc.SharedArray.empty(EVENTS, np.int64) as places:
        sc.parallel_apply(flag, sc.write(places), sc.read(energies), LIMIT)
        last = places[-1]
        sc.parallel_scan(np.add, places, exclusive=True)
        count = places[-1] + last
        kept, times = sc.SharedArray.empty(count), sc.SharedArray.empty(count, np.int64)
        sc.parallel_apply(
            move,
            sc.read(energies),
            sc.read(places),
            sc.shared(kept),
            sc.shared(times),
            LIMIT,
            sc.offset,
        )
    print(f"{count} of {EVENTS} events are above {LIMIT}")
    print(f"the first three came at {times[:3]}")
    passed = energies.array > LIMIT
    same = np.array_equal(kept, energies[passed]) and np.array_equal(times, np.nonzero(passed)[0])
    print(f"as NumPy's nonzero: {same}")

"""Which worker is late, and by how much? A trace tells.

The work of a row grows with its number, so with one chunk for each worker the last one works while
the others wait. Chunks that are taken by whoever is free, many and small, end that. With the name
of a picture as its argument the program draws both calls, the one after the other.
"""

import sys

import numba as nb
import numpy as np

import shmcompute as sc

ROWS = 1200


@nb.njit
def uneven(rows, first):
    for i in range(rows.size):
        total = 0.0
        for j in range((first + i) ** 2 // 8):
            total += np.sqrt(j)
        rows[i] = total


with sc.Pool(2) as pool, sc.SharedArray.zeros(ROWS) as rows:
    sc.parallel_apply(uneven, rows[:2], sc.offset, pool=pool)  # compiles, and waits for workers
    with sc.trace() as both:
        with sc.trace() as first:
            sc.parallel_apply(uneven, rows, sc.offset, pool=pool)
        with sc.trace() as second:
            sc.parallel_apply(uneven, rows, sc.offset, pool=pool, schedule="dynamic", chunksize=40)

print(first.summary(), end="\n\n")
print(second.summary(), end="\n\n")

before, after = (trace.summary().groups[0] for trace in (first, second))
most = before.share > 0.6
print(f"late with one chunk each: {before.late.name}, which does most of the work: {most}")
print(f"more even with small chunks: {after.imbalance < before.imbalance}")

# both.save("run.json") would write a file for https://ui.perfetto.dev.
if sys.argv[1:]:
    both.plot(sys.argv[1])

"""Cumulative sums of blocks in machine code: eight at once, so that no addition waits for another.

NumPy comes to the same bits, more slowly: see `cumulative`. Numba takes a third of a second to be
ready in a program that has not used it yet, so it is asked for where that pays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import from_dtype, types

from shmcompute.system.atomic_words import jitted
from shmcompute.system.compiling import call_compiler
from shmcompute.typing import Array

KINDS = "fdlLqQ"  # characters of the dtypes that it takes
PAYS = 1 << 26  # bytes


def ready(*arrays: Array) -> bool:
    """Whether arrays like these, in rows, are to be summed here; compiles what that takes."""
    kind: np.dtype[Any] = arrays[0].dtype
    if kind.char not in KINDS or any(not _fits(array, kind) for array in arrays):
        return False
    rows, words = (types.Array(from_dtype(kind), ndim, "C") for ndim in (2, 1))
    signature = rows, words, rows
    if signature not in sums.overloads and arrays[0].nbytes < PAYS:
        return False
    call_compiler(lambda: (totals.compile(signature[:2]), sums.compile(signature)))
    return True


def _fits(array: Array, kind: np.dtype[Any]) -> bool:
    flags = array.flags
    return array.dtype == kind and flags.c_contiguous and flags.aligned and flags.writeable


@jitted
def totals(x, found):  # type: ignore[no-untyped-def]  # Numba knows
    """The sum of each row, from its first element to its last."""
    count, length = x.shape
    whole = count - count % 8
    for row in range(0, whole, 8):
        a, b, c, d = x[row], x[row + 1], x[row + 2], x[row + 3]
        e, f, g, h = x[row + 4], x[row + 5], x[row + 6], x[row + 7]
        s, t, u, v, w, y, z, q = a[0], b[0], c[0], d[0], e[0], f[0], g[0], h[0]
        for i in range(1, length):
            s += a[i]
            t += b[i]
            u += c[i]
            v += d[i]
            w += e[i]
            y += f[i]
            z += g[i]
            q += h[i]
        found[row], found[row + 1], found[row + 2], found[row + 3] = s, t, u, v
        found[row + 4], found[row + 5], found[row + 6], found[row + 7] = w, y, z, q
    for row in range(whole, count):
        a = x[row]
        s = a[0]
        for i in range(1, length):
            s += a[i]
        found[row] = s


@jitted
def sums(x, before, found):  # type: ignore[no-untyped-def]
    """The cumulative sums of each row, added to what comes before it; perhaps in place."""
    count, length = x.shape
    whole = count - count % 4
    for row in range(0, whole, 4):
        a, b, c, d = x[row], x[row + 1], x[row + 2], x[row + 3]
        e, f, g, h = found[row], found[row + 1], found[row + 2], found[row + 3]
        k, o, m, n = before[row], before[row + 1], before[row + 2], before[row + 3]
        s, t, u, v = a[0], b[0], c[0], d[0]
        e[0], f[0], g[0], h[0] = k + s, o + t, m + u, n + v
        for i in range(1, length):
            s += a[i]
            t += b[i]
            u += c[i]
            v += d[i]
            e[i] = k + s
            f[i] = o + t
            g[i] = m + u
            h[i] = n + v
    for row in range(whole, count):
        a, e, k = x[row], found[row], before[row]
        s = a[0]
        e[0] = k + s
        for i in range(1, length):
            s += a[i]
            e[i] = k + s

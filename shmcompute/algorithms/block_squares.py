"""Mean and squared differences from it in machine code: one way through memory, eight sums at once.

NumPy goes through memory five times. Numba takes a third of a second to be ready in a program that
has not used it yet, so it is asked for where that pays: by size and dtype alone, for the last bits
are not NumPy's.
"""

from __future__ import annotations

from numba import from_dtype, types

from shmcompute.system.atomic_words import jitted
from shmcompute.system.compiling import call_compiler
from shmcompute.typing import Array

KINDS = "fd"  # characters of the dtypes that it takes
PAYS = 1 << 26  # bytes
BLOCK = 2048  # elements: they stay in a first-level cache


def ready(x: Array) -> bool:
    """Whether parts of this array go through here; compiles what that takes."""
    if (
        x.nbytes < PAYS
        or x.dtype.char not in KINDS
        or not (x.flags.c_contiguous and x.flags.aligned)
    ):
        return False
    if not x.dtype.isnative:
        return False
    part = types.Array(from_dtype(x.dtype), 1, "C", readonly=not x.flags.writeable)
    call_compiler(lambda: squares.compile((part, types.float64[::1])))
    return True


@jitted
def _sum(x):  # type: ignore[no-untyped-def]  # Numba knows
    a = b = c = d = e = f = g = h = 0.0
    whole = x.size - x.size % 8
    for i in range(0, whole, 8):
        a += x[i]
        b += x[i + 1]
        c += x[i + 2]
        d += x[i + 3]
        e += x[i + 4]
        f += x[i + 5]
        g += x[i + 6]
        h += x[i + 7]
    total = ((a + e) + (c + g)) + ((b + f) + (d + h))
    for i in range(whole, x.size):
        total += x[i]
    return total


@jitted
def _squares(x, mean):  # type: ignore[no-untyped-def]
    a = b = c = d = e = f = g = h = 0.0
    whole = x.size - x.size % 8
    for i in range(0, whole, 8):
        a += (x[i] - mean) ** 2
        b += (x[i + 1] - mean) ** 2
        c += (x[i + 2] - mean) ** 2
        d += (x[i + 3] - mean) ** 2
        e += (x[i + 4] - mean) ** 2
        f += (x[i + 5] - mean) ** 2
        g += (x[i + 6] - mean) ** 2
        h += (x[i + 7] - mean) ** 2
    total = ((a + e) + (c + g)) + ((b + f) + (d + h))
    for i in range(whole, x.size):
        total += (x[i] - mean) ** 2
    return total


@jitted
def squares(x, found):  # type: ignore[no-untyped-def]
    """Put the mean, and the sum of squared differences from it, of a flat array into `found`.

    Blocks are joined as Chan, Golub and LeVeque do it, in their order.
    """
    count, mean, total = 0, 0.0, 0.0
    for start in range(0, x.size, BLOCK):
        block = x[start : min(start + BLOCK, x.size)]
        own = _sum(block) / block.size
        both, apart = count + block.size, own - mean
        total += _squares(block, own) + apart * apart * (count * (block.size / both))
        mean += apart * (block.size / both)
        count = both
    found[0], found[1] = mean, total

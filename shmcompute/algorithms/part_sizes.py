"""How an algorithm cuts an axis: by its length and its elements' size alone.

Where partial results are combined, edges decide the last bits of a float. So neither workers nor
caches have a say.
"""

from __future__ import annotations

MOST = 128  # parts, as long as none is too large
LARGEST = 1 << 22  # bytes: handing out does not show, and a few of them fit into a shared cache


def part_length(length: int, nbytes: int, smallest: int) -> int:
    """Elements of a part, along an axis of this length and so many bytes in all."""
    wanted = min(LARGEST, max(smallest, nbytes // MOST))
    return max(1, length * wanted // max(1, nbytes)) if nbytes > wanted else max(1, length)

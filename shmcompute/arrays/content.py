"""What caches take for an array's content, which they must not take its handle for.

A `SharedArray` pickles as its handle, which stays the same when its elements change. Who pickles
to know whether something is as it was before would find it unchanged.
"""

from __future__ import annotations

import sys

STEPS = 2  # frames from `is_hashed` to who asked for the pickle


def is_hashed() -> bool:
    """Whether the pickle that ``__reduce__`` is asked for is one that joblib only hashes.

    It has no protocol for what is no ndarray; its hasher is a pickler in Python, whose method is
    the direct caller.
    """
    hashing = sys.modules.get("joblib.hashing")
    if hashing is None:
        return False
    return isinstance(sys._getframe(STEPS).f_locals.get("self"), hashing.Hasher)

"""What caches take for an array's content, which they must not take its handle for.

A `SharedArray` pickles as its handle, which stays the same when its elements change. Who pickles
to know whether something is as it was before would find it unchanged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from types import FrameType

DEPTH = 12  # frames, from ``__reduce__`` up, among which who asked for the pickle is


def is_hashed() -> bool:
    """Whether the pickle that ``__reduce__`` is asked for is one that joblib or Dask only hashes.

    They hash so what they do not know, and what such an object holds; there is no protocol for it.
    joblib's hasher is a pickler in Python, so its methods are among the callers.
    """
    if "joblib.hashing" not in sys.modules and "dask.tokenize" not in sys.modules:
        return False
    return any(map(_hashes, islice(_callers(sys._getframe(1)), DEPTH)))


def _callers(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _hashes(frame: FrameType) -> bool:
    module, function = frame.f_globals.get("__name__"), frame.f_code.co_name
    if (module, function) == ("dask.tokenize", "_normalize_pickle"):
        return True
    hashing = sys.modules.get("joblib.hashing")
    return (
        hashing is not None
        and function == "save"
        and isinstance(frame.f_locals.get("self"), hashing.Hasher)
    )

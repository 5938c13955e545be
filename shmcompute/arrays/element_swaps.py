"""`refuse_swap`: elements that are views are not swapped as those of a list are.

``x[i], x[j] = x[j], x[i]`` loses one of two rows, as they are views. `random.shuffle` does that,
and so does NumPy with what is no ndarray: it warns, but a program may have switched warnings off.
"""

from __future__ import annotations

import dis
import sys
from types import FrameType

import numpy as np

from shmcompute.typing import Array

_ASSIGNS = {dis.opmap[name] for name in ("STORE_SUBSCR", "STORE_SLICE") if name in dis.opmap}


def refuse_swap(target: Array, value: Array | np.void) -> None:
    """Raise TypeError if a view of the target is put into it by machine code, or by `random`.

    To be called by a ``__setitem__``.
    """
    owner = value if isinstance(value, np.ndarray) else value.base
    if not np.may_share_memory(target, owner):
        return
    if not _is_assignment(sys._getframe(2)):
        raise TypeError(
            f"elements of a SharedArray of shape {target.shape}, {target.dtype}, are put into it "
            "as if it were a list. They are views: of two that are swapped one would be lost. "
            "Pass the plain array: rng.shuffle(arr.array); to random.shuffle, a list of indices"
        )


def _is_assignment(frame: FrameType) -> bool:
    """Whether that frame, which is no shuffle of Python's own, has an assignment at hand."""
    if frame.f_globals.get("__name__") == "random":
        return False
    return frame.f_code.co_code[frame.f_lasti] in _ASSIGNS

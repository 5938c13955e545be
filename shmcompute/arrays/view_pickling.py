"""How a view of a shared array travels: by what it looks into, never by its data."""

from __future__ import annotations

from typing import Any

import numpy as np

from shmcompute import storage
from shmcompute.storage import Handle
from shmcompute.typing import Array


def reduce_view(view: Array) -> tuple[Any, ...] | None:
    """How `view` travels without its data, in the terms of ``__reduce__``; None if it can't.

    Raises
    ------
    ClosedError
        If the array it looks into has been closed by its owner.
    """
    found = storage.locate(view)
    if found is None or view.dtype.hasobject:
        return None
    segment, offset = found
    segment.check()
    return _view, (
        segment.handle,
        offset,
        view.shape,
        view.strides,
        view.dtype,
        view.flags.writeable,
    )


def _view(
    handle: Handle,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    dtype: np.dtype[Any],
    writeable: bool,
) -> Array:
    _, whole = storage.map_handle(handle)
    memory: Any = whole.base
    if 0 in shape:  # its strides may lead anywhere: there is nothing to follow them
        strides, offset = None, min(offset, memory.nbytes)
    # ndarray() checks that shape and strides stay inside `memory`.
    view: Array = np.ndarray(shape, dtype, buffer=memory, offset=offset, strides=strides)
    if not writeable:
        view.flags.writeable = False
    return view

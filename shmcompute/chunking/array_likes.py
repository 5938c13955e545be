"""Other libraries' arrays: the memory that a Series, a tensor or a DataArray lends, uncopied.

None of these libraries is imported: NumPy asks them, by the protocols that they speak.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from shmcompute.typing import Array


class UnlentError(TypeError):
    """An array of another library has no memory to lend, but is to be split."""


PROTOCOLS = ("__array__", "__array_interface__", "__array_struct__", "__dlpack__")


def is_array_like(value: Any) -> bool:
    """Whether a value is neither an ndarray nor a scalar, and NumPy can make an array of it."""
    kind = type(value)
    return not issubclass(kind, (np.ndarray, np.generic, type)) and any(
        hasattr(kind, name) for name in PROTOCOLS
    )


def lent_array(value: Any) -> Array | None:
    """A view of the memory of an array-like; None if it is none, or has no memory to lend.

    Such as has to be read (zarr, h5py), computed (Dask) or brought from another device, or lies in
    several pieces (a DataFrame's columns).
    """
    if not is_array_like(value) or is_lazy(value):
        return None
    # Tensors of torch know no `copy=False`, and lend their memory by DLPack alone.
    ways: list[Callable[[Any], Any]] = [partial(np.asarray, copy=False)]
    if hasattr(type(value), "__dlpack__"):
        ways.insert(0, np.from_dlpack)
    for lend in ways:
        with suppress(Exception):  # each library has errors of its own for that
            view = lend(value)
            return view if isinstance(view, np.ndarray) else None
    return None


def kind_of(value: Any) -> str:
    """What messages call a value's type: ``pandas.Series``."""
    kind = type(value)
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def is_lazy(value: Any) -> bool:
    """Whether it is a graph of Dask's, or holds one, which asking for memory would compute."""
    graph = getattr(value, "__dask_graph__", None)
    return graph is not None and graph() is not None

"""Jitted kernels that write what other jitted kernels return, so that machine code calls them."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.dispatcher import Dispatcher
from numba.np.numpy_support import as_dtype

from shmcompute.algorithms.combine import Partials
from shmcompute.errors import KernelTypeError
from shmcompute.kernels import name_of
from shmcompute.typing import Array

# An attribute of a dispatcher. It and what is made of it refer to each other, and go together.
_MADE = "_shmcompute_storing"


def layout(kernel: str, returned: set[Any]) -> np.dtype[Any] | None:
    """How memory holds the result of a jitted kernel; None if only its run can tell.

    A tuple has a field for each part.

    Raises
    ------
    KernelTypeError
        If it returns nothing, or what is no number.
    """
    if None in returned or len(returned) > 1:
        return None
    (kind,) = returned
    if isinstance(kind, types.Array):
        return None
    several = isinstance(kind, types.BaseTuple)
    parts = [types.unliteral(part) for part in (kind if several else [kind])]
    if kind is types.none or not parts or not all(map(_is_number, parts)):
        raise KernelTypeError(
            f"kernel {kernel} returns {'nothing' if kind is types.none else kind}: a reduction's "
            "kernel returns a number, a tuple of numbers, or an array of numbers for its chunk"
        )
    dtypes = [np.dtype(as_dtype(part)) for part in parts]
    if not several:
        return dtypes[0]
    return np.dtype([(f"f{i}", dtype) for i, dtype in enumerate(dtypes)], align=True)


def _is_number(kind: Any) -> bool:
    return isinstance(kind, (types.Number, types.Boolean, types.NPDatetime, types.NPTimedelta))


def storing(dispatcher: Dispatcher, arguments: int, parts: int) -> Dispatcher:
    """A kernel that puts what `dispatcher` returns into an array. It is made once.

    Its last two arguments are the place there, and the array. `parts`: how many a tuple has; 0 for
    a number.
    """
    first = next(iter(dispatcher.overloads.values()), None)  # which `recompile` replaces
    version, made = vars(dispatcher).get(_MADE, (None, {}))
    if version is not first:
        made = {}
        setattr(dispatcher, _MADE, (first, made))
    if (arguments, parts) not in made:
        made[arguments, parts] = _jitted(dispatcher, arguments, parts)
    kernel: Dispatcher = made[arguments, parts]
    return kernel


def _jitted(dispatcher: Dispatcher, arguments: int, parts: int) -> Dispatcher:
    # Machine code calls functions of as many arguments as are written down: so this one is written.
    names = [f"a{i}" for i in range(arguments)]
    lines = [f"out[place].f{i} = result[{i}]" for i in range(parts)] or ["out[place] = result"]
    body = [f"result = kernel({', '.join(names)})", *lines]
    text = f"def storing({', '.join([*names, 'place', 'out'])}):\n" + "".join(
        f"    {x}\n" for x in body
    )
    scope: dict[str, Any] = {"kernel": dispatcher, "__name__": __name__}
    exec(text, scope)  # noqa: S102  # made of nothing but numbers
    function = scope["storing"]
    function.__qualname__ = function.__name__ = name_of(dispatcher)
    options = {name: dispatcher.targetoptions.get(name, False) for name in ("nogil", "boundscheck")}
    made: Dispatcher = numba.njit(**options)(function)
    return made


def stored(outputs: Array, dtype: np.dtype[Any]) -> Partials:
    """What such a kernel has put into the outputs of all chunks."""
    flat = outputs.reshape(len(outputs))
    if dtype.names is None:
        return Partials((flat.copy(),), several=False)
    return Partials(tuple(flat[name].copy() for name in dtype.names), several=True)

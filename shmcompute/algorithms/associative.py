"""`associative`: the ufunc that a scan uses: NumPy's, Numba's, or one of a jitted function."""

from __future__ import annotations

from functools import partial
from typing import Any

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError
from numba.np.numpy_support import as_dtype, from_dtype

from shmcompute.chunking import Arguments, Constant
from shmcompute.kernels import NumbaKernel, name_of
from shmcompute.system.compiling import call_compiler

# Of NumPy's own, those for which it does not matter where one begins.
_ASSOCIATIVE = frozenset(
    {"add", "multiply", "maximum", "minimum", "fmax", "fmin", "gcd", "lcm", "hypot"}
    | {"logical_and", "logical_or", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor"}
    | {"logaddexp", "logaddexp2"}
)
_MADE = "_shmcompute_ufuncs"  # an attribute of a dispatcher, as in `storing`


def associative(op: Any, target: np.dtype[Any], source: np.dtype[Any]) -> tuple[Any, Any]:
    """The ufunc that `op` is, and the dtype in which it works on these.

    Raises
    ------
    TypeError
        If it is neither a ufunc of two nor a jitted function, or does not take what it makes.
    ValueError
        For a ufunc of NumPy's own that is not associative.
    """
    if isinstance(op, Dispatcher):
        return _of_jitted(op, target), target
    inner = getattr(op, "ufunc", op)  # Numba wraps its own
    if not isinstance(inner, np.ufunc) or (inner.nin, inner.nout) != (2, 1):
        raise TypeError(
            "op: expected a ufunc of two inputs and one output, or a jitted function of two, got "
            f"{name_of(op)}"
        )
    name = inner.__name__
    if getattr(np, name, None) is inner and name not in _ASSOCIATIVE:
        raise ValueError(
            f"op: numpy.{name} is not associative, so it can't be computed in parts; "
            f"numpy.{name}.accumulate(x, out=x) goes through x in order"
        )
    found = inner.resolve_dtypes((target, source, None), reduction=True, casting="unsafe")
    return op, found[0]


def _of_jitted(op: Dispatcher, dtype: np.dtype[Any]) -> Any:
    zero = Constant(np.zeros((), dtype)[()])
    (returned,) = NumbaKernel(op, op).returned(Arguments((zero, zero), 0), ())
    first = next(iter(op.overloads.values()), None)  # which `recompile` replaces
    version, made = vars(op).get(_MADE, (None, {}))
    if version is not first:
        made = {}
        setattr(op, _MADE, (first, made))
    if dtype not in made:
        _check_returned(op, returned, dtype)
        made[dtype] = call_compiler(partial(_vectorized, op, dtype))
    return made[dtype]


def _check_returned(op: Dispatcher, returned: Any, dtype: np.dtype[Any]) -> None:
    """Numba's sums of small integers are large ones; that much may be cut off again."""
    try:
        found = np.dtype(as_dtype(returned))
    except (NumbaError, NotImplementedError):  # no type of an element
        found = None
    if found is None or found.kind != dtype.kind or (found != dtype and dtype.kind not in "iu"):
        raise TypeError(f"op: {name_of(op)} returns {returned} for two {dtype}, expected {dtype}")


def _vectorized(op: Dispatcher, dtype: np.dtype[Any]) -> Any:
    kind = from_dtype(dtype)

    def function(one: Any, other: Any) -> Any:
        return op(one, other)

    return numba.vectorize([kind(kind, kind)])(function)

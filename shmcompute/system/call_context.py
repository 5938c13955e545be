"""`CallContext`: what rules a caller's arithmetic and warnings, and does not reach other processes.

Threads get a copy of all context variables. Of these only NumPy's error state and decimal's context
can be sent; the filters of warnings belong to a process.
"""

from __future__ import annotations

import decimal
import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

from shmcompute.system import context

T = TypeVar("T")
_KNOWN = ("builtins", "numpy", "numba")  # where classes of warnings are that may be sent


class CallContext(NamedTuple):
    """NumPy's error state, the filters of warnings, decimal's precision, rounding and traps."""

    errors: tuple[tuple[str, Any], ...]
    filters: tuple[Any, ...]
    decimals: tuple[Any, ...]

    def run(self, function: Callable[..., T], /, *args: Any, **keywords: Any) -> T:
        """Call a function under it. The filters stay: who comes next brings others."""
        if context.in_worker and warnings.filters != [*_first, *self.filters]:
            warnings.resetwarnings()  # which also forgets what was shown
            warnings.filters[:] = [*_first, *self.filters]  # type: ignore[index]  # typed as less
        with np.errstate(**dict(self.errors)), decimal.localcontext(_decimal(self.decimals)):
            return function(*args, **keywords)


# Of a worker: what its pool's initializer has put before the filters of whoever asks for work.
_first: tuple[Any, ...] = ()


def keep_filters(function: Callable[..., T], /, *args: Any, **keywords: Any) -> T:
    """Call a function; the filters of warnings that it adds are this worker's from now on."""
    global _first
    before = list(warnings.filters)
    result = function(*args, **keywords)
    _first = tuple(one for one in warnings.filters if one not in before)
    return result


def call_context() -> CallContext:
    """That of this thread, now."""
    errors: dict[str, Any] = {**np.geterr()}
    if "call" in errors.values() or "log" in errors.values():
        errors["call"] = np.geterrcall()
    now = decimal.getcontext()
    traps = tuple(signal for signal, trapped in now.traps.items() if trapped)
    decimals = now.prec, now.rounding, now.Emin, now.Emax, now.capitals, now.clamp, traps
    return CallContext(tuple(errors.items()), _filters(), decimals)


# The filters when they were last looked at, and those of them that may be sent: they seldom change,
# and each task asks.
_last_filters: tuple[list[Any], tuple[Any, ...]] = [], ()


def _filters() -> tuple[Any, ...]:
    """The filters of warnings that any process knows."""
    global _last_filters
    known = _last_filters
    if known[0] != warnings.filters:
        now = list(warnings.filters)
        known = now, tuple(one for one in now if one[2].__module__.startswith(_KNOWN))
        _last_filters = known
    return known[1]


@functools.lru_cache(maxsize=8)
def _decimal(described: tuple[Any, ...]) -> decimal.Context:
    prec, rounding, low, high, capitals, clamp, traps = described
    return decimal.Context(prec, rounding, low, high, capitals, clamp, [], list(traps))

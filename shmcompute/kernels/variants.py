"""Twins: jitted functions compiled once more, with other options, for who runs them otherwise."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from numba.core.dispatcher import Dispatcher
from numba.np.ufunc.gufunc import GUFunc

# By what they are twins of, and their options.
_twins: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], Any]] = weakref.WeakKeyDictionary()


def nogil(dispatcher: Dispatcher) -> Dispatcher:
    """`dispatcher` compiled to let go of the GIL and to start no threads of its own.

    Numba's ``parallel=True`` would start a team of threads in each thread of ours; its portable
    threading layer aborts the process when two threads enter it.
    """
    return _twin(dispatcher, nogil=True, parallel=False)


def bounded(dispatcher: Dispatcher) -> Dispatcher:
    """`dispatcher` compiled to raise IndexError for each index that is out of bounds.

    What it calls is not: jitted functions have options of their own. Numba does not check the
    indices of ``parallel=True``.
    """
    return _twin(dispatcher, boundscheck=True, parallel=False)


def bounded_gufunc(gufunc: GUFunc) -> GUFunc:
    """The same for a gufunc of Numba's, which can index beyond its arrays, too."""
    twins = _twins.setdefault(gufunc, {})
    if ("boundscheck",) not in twins:
        try:
            states = gufunc._reduce_states()
            states["targetoptions"] = {**states["targetoptions"], "boundscheck": True}
            states["cache"] = False  # what it has on disk is not checked
            twins["boundscheck",] = type(gufunc)._rebuild(**states)
        except Exception:  # noqa: BLE001  # private parts of Numba: do without
            return gufunc
    twin: GUFunc = twins["boundscheck",]
    return twin


def _twin(dispatcher: Dispatcher, **options: bool) -> Dispatcher:
    given = dispatcher.targetoptions
    if not given.get("nopython") or all(
        bool(given.get(name)) is wanted for name, wanted in options.items()
    ):
        return dispatcher
    twins = _twins.setdefault(dispatcher, {})
    key = tuple(options)
    if key not in twins:
        twins[key] = _compiling_like(dispatcher, {**given, **options})
        setattr(dispatcher, "recompile", _recompiling(dispatcher.recompile, twins[key]))  # noqa: B010
    twin: Dispatcher = twins[key]
    return twin


def _compiling_like(dispatcher: Dispatcher, options: dict[str, Any]) -> Dispatcher:
    """Another dispatcher of the same function, compiled for the same types if these were given."""
    twin = type(dispatcher)(dispatcher.py_func, targetoptions=options)
    if not getattr(dispatcher, "_can_compile", True):
        for signature in dispatcher.nopython_signatures:
            twin.compile(signature)
        twin.disable_compile()
    return twin


def _recompiling(own: Callable[[], None], twin: Dispatcher) -> Callable[[], None]:
    """A dispatcher's ``recompile`` that goes for its twin, too."""

    def recompile() -> None:
        own()
        twin.recompile()

    return recompile

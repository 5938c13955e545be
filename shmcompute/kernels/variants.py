"""Variants: jitted functions compiled once more with other options, for threads or debugging."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

from numba.core.compiler import Compiler
from numba.core.dispatcher import Dispatcher
from numba.np.ufunc.gufunc import GUFunc

from shmcompute.kernels.base import unwrap
from shmcompute.kernels.bounds import NamingCompiler
from shmcompute.kernels.dispatcher_pickling import pipeline_of
from shmcompute.system.compiling import call_compiler

# The variants of each dispatcher or gufunc, by the names of the options that differ.
_variants: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], Any]] = weakref.WeakKeyDictionary()


def nogil(dispatcher: Dispatcher) -> Dispatcher:
    """`dispatcher` compiled to let go of the GIL and to start no threads of its own.

    Numba's ``parallel=True`` would start threads of its own in each thread of ours; its portable
    threading layer aborts the process when two threads enter it.
    """
    return _variant(dispatcher, nogil=True, parallel=False)


def dispatchers_of(function: Any) -> list[Dispatcher]:
    """The dispatcher that a kernel is, if it is one, and the variants of it that there are."""
    dispatcher = unwrap(function)[0]
    if not isinstance(dispatcher, Dispatcher):
        return []
    return [dispatcher, *_variants.get(dispatcher, {}).values()]


def original_of(variant: Dispatcher) -> Dispatcher:
    """The dispatcher that this is a variant of; itself if it is none."""
    held = (
        one for one, made in _variants.items() if any(each is variant for each in made.values())
    )
    return next(held, variant)


def bounded(dispatcher: Dispatcher) -> Dispatcher:
    """`dispatcher` compiled to raise IndexError for each index that is out of bounds.

    Jitted functions that it calls keep their own options, so their indices are not checked. Numba
    does not check the indices of ``parallel=True``, so that is switched off.
    """
    return _variant(dispatcher, boundscheck=True, parallel=False)


def bounded_gufunc(gufunc: GUFunc) -> GUFunc:
    """The same for a gufunc of Numba's, which can index beyond its arrays, too."""
    variants = _variants.setdefault(gufunc, {})
    if ("boundscheck",) not in variants:
        try:
            states = gufunc._reduce_states()
            states["targetoptions"] = {**states["targetoptions"], "boundscheck": True}
            states["cache"] = False  # the code cached on disk does not check
            rebuild = partial(type(gufunc)._rebuild, **states)
            variants["boundscheck",] = call_compiler(rebuild)
        except Exception:  # noqa: BLE001  # private parts of Numba: do without
            return gufunc
    variant: GUFunc = variants["boundscheck",]
    return variant


def _variant(dispatcher: Dispatcher, **options: bool) -> Dispatcher:
    """`dispatcher` compiled with these options; itself if it has them, or runs as Python."""
    given = dispatcher.targetoptions
    if not given.get("nopython") or all(
        bool(given.get(name)) is wanted for name, wanted in options.items()
    ):
        return dispatcher
    variants = _variants.setdefault(dispatcher, {})
    key = tuple(options)
    if key not in variants:
        variants[key] = _compiled_like(dispatcher, {**given, **options})
        _recompile_together(dispatcher, variants[key])
    variant: Dispatcher = variants[key]
    return variant


def _compiled_like(dispatcher: Dispatcher, options: dict[str, Any]) -> Dispatcher:
    """Another dispatcher of the same function, compiled for the same types if these were given."""
    # All of what a decorator takes: what is not passed on here is lost in threads and debugging.
    pipeline = pipeline_of(dispatcher)
    if pipeline is Compiler and options.get("boundscheck"):
        pipeline = NamingCompiler
    variant = type(dispatcher)(dispatcher.py_func, dispatcher.locals, options, pipeline)
    if not getattr(dispatcher, "_can_compile", True):
        call_compiler(partial(_compile_all, variant, dispatcher.nopython_signatures))
        variant.disable_compile()
    return variant


def _compile_all(variant: Dispatcher, signatures: Sequence[Any]) -> None:
    for signature in signatures:
        variant.compile(signature)


def _recompile_together(dispatcher: Dispatcher, variant: Dispatcher) -> None:
    """Have the dispatcher's ``recompile()``, which drops old code, recompile the variant, too."""
    own = dispatcher.recompile

    def recompile() -> None:
        own()
        variant.recompile()

    setattr(dispatcher, "recompile", recompile)  # noqa: B010  # an attribute over the method

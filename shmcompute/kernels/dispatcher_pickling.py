"""How the machine code of jitted kernels travels.

This and `trampoline` are the places that know Numba's private parts. Wherever these fail, there is
another way: a kernel whose code can't travel goes as its source and is compiled again.
"""

from __future__ import annotations

import itertools
import os
import pickle
import sys
import time
import types
import weakref
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from operator import is_
from typing import Any, TypeVar, cast

from llvmlite.binding import address_of_symbol
from numba.core import event, serialize
from numba.core.bytecode import FunctionIdentity
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.environment import Environment, _rebuild_env
from numba.core.funcdesc import FunctionDescriptor
from numba.core.registry import cpu_target
from numba.core.runtime.nrt import rtsys

from shmcompute import events
from shmcompute.system.compiling import call_compiler
from shmcompute.system.elf import undefined_symbols

Compiled = Any  # Numba's CompileResult
T = TypeVar("T")


class PackedOnce:
    """What was made of dispatchers: anew where one has been compiled for other types since."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, tuple[list[Compiled], Any]]
        self._known = weakref.WeakKeyDictionary()

    def of(self, dispatcher: Any, make: Callable[[], T]) -> T:
        """What `make` returns, or returned for the versions that there are."""
        versions = list(dispatcher.overloads.values())
        known = self._known.get(dispatcher)
        if known is None or len(known[0]) != len(versions) or not all(map(is_, known[0], versions)):
            known = self._known[dispatcher] = versions, make()
        return cast(T, known[1])


def refresh() -> None:
    """Load Numba's registries, which must precede any use of machine code from elsewhere."""
    with global_compiler_lock:  # another thread may be compiling
        cpu_target.typing_context.refresh()
        cpu_target.target_context.refresh()


def reduce_dispatcher(dispatcher: Any) -> tuple[Any, ...] | None:
    """A dispatcher with its machine code, as ``__reduce__`` returns it; None if it is none of ours.

    Where machine code can't travel the receiver compiles the source.
    """
    states = dispatcher._reduce_states()
    if not {"can_compile", "sigs"} <= states.keys():
        return None
    found = _reduce_versions(dispatcher)
    versions = [] if isinstance(found, str) else found
    if isinstance(found, str):
        name = dispatcher.py_func.__qualname__
        events.tell("kernel_as_source", kernel=name, why=found)
    packed = serialize.dumps((states, pipeline_of(dispatcher)))
    return _rebuild_dispatcher, (type(dispatcher), packed, versions)


def pipeline_of(dispatcher: Any) -> Any:
    """The ``pipeline_class`` that it was made with, which Numba itself does not send."""
    return dispatcher._compiler.pipeline_class


def why_source(dispatcher: Any) -> str | None:
    """Why its machine code can't travel, so that receivers compile its source; None if it can."""
    found = _reduce_versions(dispatcher)
    return found if isinstance(found, str) else None


def _reduce_versions(dispatcher: Any) -> list[bytes] | str:
    """Its machine code; or why one of its versions can't travel."""
    try:
        compiled = list(dispatcher.overloads.values())
        reason = next(filter(None, map(_why_it_stays, compiled)), None)
        return reason or call_compiler(lambda: list(map(_reduce_version, compiled)))
    except Exception as error:  # noqa: BLE001  # private parts: whatever it is, the source will do
        return f"Numba can't pickle it ({type(error).__name__}: {error})"


def _why_it_stays(compiled: Compiled) -> str | None:
    """Why a version means nothing in another process."""
    if compiled.objectmode:
        return "it was compiled in object mode"
    if compiled.lifted:
        return "a `with objmode` block, or a lifted loop, in it is a Python function"
    if compiled.library.has_dynamic_globals:
        return (
            "it refers to addresses of this process: those of an array that it captures and that "
            "is large or not contiguous, or of a C function"
        )
    return None


def _reduce_version(compiled: Compiled) -> bytes:
    packed: bytes = serialize.dumps(_without_globals(compiled._reduce()))
    return packed


class _WithoutGlobals:
    """Pickles an environment as one with no globals of its own.

    Unpickling an environment imports the module of its globals, the kernel's. These serve a
    function that runs as Python, and such a function does not travel.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_env, ("builtins", self._environment.consts, self._environment.env_name)


def _without_globals(part: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(map(_without_globals, part))
    if isinstance(part, FunctionDescriptor):  # of a function of no module, which `exec` made,
        part = copy(part)
        part.global_dict = None  # they are all of the program's, builtins of a notebook included
    return _WithoutGlobals(part) if isinstance(part, Environment) else part


def _rebuild_dispatcher(kind: Any, packed: bytes, versions: list[bytes]) -> Any:
    """The dispatcher that was sent; the one that is here already if it has the same origin."""
    states, pipeline = pickle.loads(packed)
    # Numba returns the dispatcher that has the same uuid: in a forked worker the parent's own.
    dispatcher = kind._rebuild(**states | {"can_compile": True, "sigs": []})
    dispatcher._compiler.pipeline_class = pipeline
    _keep_own_globals(dispatcher, set())
    dispatcher._can_compile = True  # one that was here may have it switched off
    for version in versions:
        with suppress(Exception):  # private parts: the source will do
            _add_version(dispatcher, version)
    for signature in states["sigs"]:  # of an eager kernel: compiles those that did not come
        dispatcher.compile(signature)
    dispatcher._can_compile = states["can_compile"]
    return dispatcher


def _keep_own_globals(function: Any, seen: set[Any]) -> None:
    """Have object mode find the globals of jitted functions that came by value, callees too.

    It looks them up in the module that a function names, which here is another one of that name,
    unless the function names none.
    """
    source = getattr(function, "py_func", function)
    name, own = source.__module__, source.__globals__
    if source in seen or own is vars(sys.modules.get(name, types)):
        return
    seen.add(source)
    if source is not function:
        source.__module__ = None
    values = [*own.values()]
    for cell in source.__closure__ or ():
        with suppress(ValueError):  # not filled yet
            values.append(cell.cell_contents)
    for value in values:
        if isinstance(value, (Dispatcher, types.FunctionType)):
            _keep_own_globals(value, seen)


def _add_version(dispatcher: Dispatcher, packed: bytes) -> None:
    parts = pickle.loads(packed)
    descriptor, signature = parts[1], tuple(parts[3].args)
    descriptor.modname = "<dynamic>"  # what Numba calls a module that is not to be imported
    present: Compiled = dispatcher.overloads.get(signature)
    if present is not None and present.fndesc.llvm_func_name == descriptor.llvm_func_name:
        return
    with global_compiler_lock:
        if not _knows_all_calls(parts[0]):
            refresh()
        dispatcher.add_overload(CompileResult._rebuild(cpu_target.target_context, *parts))


def _knows_all_calls(library: Any) -> bool:
    """Whether this process knows all that machine code calls, without Numba's registries.

    They take a third of a second to load. LLVM ends a process that runs code without them which
    calls what they bring.
    """
    _, form, content = library
    rtsys.initialize(cpu_target.target_context)  # what allocates memory; once in a process
    engine = cpu_target.target_context.codegen()._engine
    try:
        called = undefined_symbols(content[0]) if form == "object" else None
    except (IndexError, ValueError):  # another format than this system's
        called = None
    return called is not None and all(
        engine.is_symbol_defined(name) or address_of_symbol(name) for name in called
    )


def own_symbols() -> None:
    """Give what this process compiles names that no other process's code has (numba#10486).

    Numba numbers the functions that it compiles, and finds code by a name made of that number.
    """
    if hasattr(FunctionIdentity, "_unique_ids"):
        FunctionIdentity._unique_ids = itertools.count((os.getpid() << 32) + 1)


class Compilations(event.Listener):
    """Counts the compilations of this process from now on.

    Each, when it has ended, is told when it began, by `time.monotonic_ns`.
    """

    def __init__(self, ended: Callable[[int], None]) -> None:
        self.count = 0
        self._ended = ended
        self._began: list[int] = []  # one may need another
        event.register("numba:compile", self)

    def on_start(self, event: Any) -> None:
        self.count += 1
        self._began.append(time.monotonic_ns())

    def on_end(self, event: Any) -> None:
        if self._began:  # else it began before this was made
            self._ended(self._began.pop())

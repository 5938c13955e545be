"""How the machine code of jitted kernels travels.

This and `trampoline` are the places that know Numba's private parts. Whatever they refuse here, the
caller does without: a kernel whose code can't travel goes as its source and is compiled again.
"""

from __future__ import annotations

import itertools
import os
import pickle
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from numba.core import event, serialize
from numba.core.bytecode import FunctionIdentity
from numba.core.compiler import CompileResult
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher
from numba.core.environment import Environment, _rebuild_env
from numba.core.registry import cpu_target

Compiled = Any  # Numba's CompileResult


def refresh() -> None:
    """Load Numba's registries, without which machine code from elsewhere is not to be touched."""
    with global_compiler_lock:  # another thread may be compiling
        cpu_target.typing_context.refresh()
        cpu_target.target_context.refresh()


def shipped(dispatcher: Dispatcher) -> tuple[bytes, ...]:
    """What was compiled of a dispatcher, as bytes; empty where it can't travel."""
    try:
        return tuple(
            serialize.dumps(tuple(map(_bare, compiled._reduce())))
            for compiled in dispatcher.overloads.values()
            if _travels(compiled)
        )
    except Exception:  # noqa: BLE001  # private parts: whatever it is, the source will do
        return ()


def _travels(compiled: Compiled) -> bool:
    # Dynamic globals are addresses, which mean nothing in another process.
    return not (compiled.objectmode or compiled.library.has_dynamic_globals or compiled.lifted)


@dataclass(frozen=True)
class _Constants:
    """What stands for an environment on the way, which would import the kernel's module there.

    Its globals are for a function that runs as Python, and such a function does not travel.
    """

    constants: list[Any]
    name: str

    def environment(self) -> Any:
        return _rebuild_env("builtins", self.constants, self.name)


def _bare(part: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(map(_bare, part))
    return _Constants(part.consts, part.env_name) if isinstance(part, Environment) else part


def _dressed(part: Any) -> Any:
    if isinstance(part, tuple):
        return tuple(map(_dressed, part))
    return part.environment() if isinstance(part, _Constants) else part


def reduce_dispatcher(dispatcher: Any) -> tuple[Any, ...] | None:
    """A dispatcher with its machine code, in the terms of ``__reduce__``; None to do without."""
    code = shipped(dispatcher)
    if len(code) != len(dispatcher.overloads):
        return None
    states = dispatcher._reduce_states()
    if not {"can_compile", "sigs"} <= states.keys():
        return None
    return _arrived, (type(dispatcher), serialize.dumps(states), code)


def _arrived(kind: Any, packed: bytes, code: tuple[bytes, ...]) -> Any:
    """The dispatcher that was sent; where one of its origin is here already, that one."""
    states = pickle.loads(packed)
    given = states["sigs"]
    # Numba gives back what it has under the same uuid: in a forked worker the parent's own.
    dispatcher = kind._rebuild(**states | {"can_compile": True, "sigs": []})
    dispatcher._can_compile = True  # if it was here it may not be
    for payload in code:
        with suppress(Exception):  # private parts: the source will do
            _add(dispatcher, payload)
    for signature in given:  # of an eager kernel: what did not come
        dispatcher.compile(signature)
    dispatcher._can_compile = states["can_compile"]
    return dispatcher


def _add(dispatcher: Dispatcher, payload: bytes) -> None:
    parts = tuple(map(_dressed, pickle.loads(payload)))
    described, signature = parts[1], tuple(parts[3].args)
    described.modname = "<dynamic>"  # what Numba calls a module that is not to be imported
    here: Compiled = dispatcher.overloads.get(signature)
    if here is not None and here.fndesc.llvm_func_name == described.llvm_func_name:
        return
    with global_compiler_lock:
        refresh()
        dispatcher.add_overload(CompileResult._rebuild(cpu_target.target_context, *parts))


def own_symbols() -> None:
    """Have what this process compiles bear names that no other process's code has (numba#10486).

    Numba numbers the functions that it compiles, and finds code by a name made of that number.
    """
    if hasattr(FunctionIdentity, "_unique_ids"):
        FunctionIdentity._unique_ids = itertools.count((os.getpid() << 32) + 1)


class Compilations(event.Listener):
    """Counts the compilations of this process from now on."""

    def __init__(self) -> None:
        self.count = 0
        event.register("numba:compile", self)

    def on_start(self, event: Any) -> None:
        self.count += 1

    def on_end(self, event: Any) -> None:
        pass

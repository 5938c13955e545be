"""Words of memory that several processes read and write at once, for use in jitted code.

Numba has no atomics for the CPU, so each of these is a few instructions of LLVM's. All are
sequentially consistent: a load costs nothing more for that on x86-64 and AArch64, and a doorbell
that is rung a hundred thousand times a second can afford it for a store.

A thread that waits for a word sleeps in a futex where the platform has them; elsewhere it polls
(`poll`).

The file is long because each instruction is a function, with its reason beside it.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from shmcompute import config
from shmcompute.system.code_cache import cache_for
from shmcompute.system.compiling import ShieldedDispatcher

Signature = Any  # Numba is not typed
Generator = Any
_intrinsic: Callable[[Callable[..., Any]], Any] = intrinsic  # else its type is without arguments

_I64, _I32 = ir.IntType(64), ir.IntType(32)
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), 0)  # the number of the system call
_RELAX = {"x86_64": ("llvm.x86.sse2.pause", ()), "aarch64": ("llvm.aarch64.hint", (1,))}
_WAIT, _WAKE = 0, 1
# The clock of `time.monotonic_ns`, which all processes share.
_CLOCK: int = getattr(time, "CLOCK_UPTIME_RAW", time.CLOCK_MONOTONIC)  # there on macOS alone
_FIRST_NAP, _LONGEST_NAP = 50, 4000  # microseconds between two looks of a thread that polls


def has_futex() -> bool:
    """Whether jitted code can sleep until a word changes."""
    return sys.platform == "linux" and _FUTEX != 0


def waits_by_futex() -> bool:
    """Whether a thread that waits for a word sleeps in a futex; if not, it polls."""
    default = "futex" if has_futex() else "poll"
    return config.chosen("wait", None, "WAIT", config.WAITS, default) == "futex" and has_futex()


def jitted(function: Callable[..., Any], *, nogil: bool = True, inlines: Iterable[str] = ()) -> Any:
    """Compile a function once on this machine: the machine code is kept in Numba's cache.

    ``NUMBA_DISABLE_JIT`` does not hold here: it is for stepping through kernels, not through ours.

    Parameters
    ----------
    function : callable
        What to compile.
    nogil : bool
        Whether it runs without the GIL.
    inlines : iterable of str
        Paths of the files, beside its own and this one, whose code becomes part of it. By itself
        Numba compiles a cached function anew only if the function's own file has changed.
    """
    dispatcher = ShieldedDispatcher(function, targetoptions={"nopython": True, "nogil": nogil})
    cache = cache_for(function, (__file__, *inlines))
    if cache is not None:
        dispatcher._cache = cache  # type: ignore[attr-defined]  # what Numba's own `enable_caching` does
    return dispatcher


def compile_all(dispatchers: Iterable[Any]) -> None:
    """Have functions of words compiled, or loaded, that would else be at their first call."""
    for dispatcher in dispatchers:
        dispatcher.compile((types.int64,) * dispatcher.py_func.__code__.co_argcount)


def _pointer(builder: Any, address: Any) -> Any:
    return builder.inttoptr(address, _I64.as_pointer())


@_intrinsic
def load(_: Any, address: Any) -> tuple[Signature, Generator]:
    """The word at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_pointer(builder, args[0]), "seq_cst", 8)

    return types.int64(types.int64), generate


@_intrinsic
def store(_: Any, address: Any, value: Any) -> tuple[Signature, Generator]:
    """Set the word at an address."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@_intrinsic
def put(_: Any, address: Any, value: Any) -> tuple[Signature, Generator]:
    """Set the word at an address, in no order: a `store` that follows publishes it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], _pointer(builder, args[0]), "monotonic", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@_intrinsic
def add(_: Any, address: Any, value: Any) -> tuple[Signature, Generator]:
    """Add to the word at an address; what it was before."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@_intrinsic
def swap(_: Any, address: Any, old: Any, new: Any) -> tuple[Signature, Generator]:
    """Set the word at an address if it is `old`; whether it was."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, old, new = args
        place = _pointer(builder, address)
        return builder.extract_value(builder.cmpxchg(place, old, new, "seq_cst", "seq_cst"), 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@_intrinsic
def relax(_: Any) -> tuple[Signature, Generator]:
    """Tell the processor that this is a loop that waits."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name, operands = _RELAX.get(platform.machine(), ("llvm.donothing", ()))
        _call_named(builder, name, ir.VoidType(), *(_I32(operand) for operand in operands))
        return context.get_dummy_value()

    return types.void(), generate


@_intrinsic
def give_way(_: Any) -> tuple[Signature, Generator]:
    """Let whoever else wants this core have it first."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call_named(builder, "sched_yield", _I32)
        return context.get_dummy_value()

    return types.void(), generate


@_intrinsic
def core(_: Any) -> tuple[Signature, Generator]:
    """The number of the core that this runs on; it may be another one a moment later."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.sext(_call_named(builder, "sched_getcpu", _I32), _I64)

    return types.int64(), generate


@_intrinsic
def now(_: Any) -> tuple[Signature, Generator]:
    """What `time.monotonic_ns` tells."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        timespec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
        place = builder.ptrtoint(timespec, _I64)
        _call_named(builder, "clock_gettime", _I32, _I32(_CLOCK), place)
        seconds, nanoseconds = (
            builder.load(cgutils.gep_inbounds(builder, timespec, 0, number)) for number in range(2)
        )
        return builder.add(builder.mul(seconds, _I64(10**9)), nanoseconds)

    return types.int64(), generate


@_intrinsic
def wait(_: Any, address: Any, value: Any, nanoseconds: Any) -> tuple[Signature, Generator]:
    """Sleep until woken, unless the word's lower half is not `value` (any more).

    At most that long if `nanoseconds` is positive. Returns 0 if woken; else a negative number:
    the value differed, the time was up, a signal came, or there is no such system call.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, value, nanoseconds = args
        timespec = cgutils.alloca_once(builder, ir.ArrayType(_I64, 2))
        second = _I64(10**9)
        parts = (builder.sdiv(nanoseconds, second), builder.srem(nanoseconds, second))
        for number, part in enumerate(parts):
            builder.store(part, cgutils.gep_inbounds(builder, timespec, 0, number))
        forever = builder.icmp_signed("<=", nanoseconds, _I64(0))
        limit = builder.select(forever, _I64(0), builder.ptrtoint(timespec, _I64))
        return _futex(builder, address, _WAIT, value, limit)

    return types.int64(types.int64, types.int64, types.int64), generate


@_intrinsic
def wake(_: Any, address: Any) -> tuple[Signature, Generator]:
    """Wake one thread that sleeps on the word."""
    return types.int64(types.int64), _waking(1)


@_intrinsic
def wake_all(_: Any, address: Any) -> tuple[Signature, Generator]:
    """Wake all threads that sleep on the word."""
    return types.int64(types.int64), _waking(2**31 - 1)


def _waking(count: int) -> Generator:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _futex(builder, args[0], _WAKE, _I64(count), _I64(0))

    return generate


def _futex(builder: Any, address: Any, operation: int, value: Any, limit: Any) -> Any:
    args = (_I64(_FUTEX), address, _I64(operation), value, limit, _I64(0), _I64(0))
    return _call_named(builder, "syscall", _I64, *args, var_arg=True)


def _call_named(builder: Any, name: str, result: Any, *args: Any, var_arg: bool = False) -> Any:
    """Call a function of the C library, or of LLVM.

    By its name, not by an address: this code is sent to other processes.
    """
    kind = ir.FunctionType(result, [arg.type for arg in args[: 1 if var_arg else None]], var_arg)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@_intrinsic
def _nap(_: Any, microseconds: Any) -> tuple[Signature, Generator]:
    """Sleep for that long."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _call_named(builder, "usleep", _I32, builder.trunc(args[0], _I32))
        return context.get_dummy_value()

    return types.void(types.int64), generate


def poll(address: int, value: int, nanoseconds: int) -> None:
    """Look at a word until it is not `value`, at most about that long if `nanoseconds` is positive.

    In place of `wait` where there is no futex. A plain function, compiled as part of its caller.
    A thread that polls for long takes some thousandths of a core, and sees a change up to 4 ms
    late.
    """
    slept, nap = 0, _FIRST_NAP
    while load(address) == value and (nanoseconds <= 0 or 1000 * slept < nanoseconds):
        _nap(nap)
        slept += nap
        nap = min(2 * nap, _LONGEST_NAP)


@_intrinsic
def call(
    _: Any,
    function: Any,
    block: Any,
    frame: Any,
    bases: Any,
    values: Any,
    start: Any,
    stop: Any,
    number: Any,
    worker: Any,
    failure: Any,
) -> tuple[Signature, Generator]:
    """Call a trampoline (see `kernels.trampoline`); 0, or the code of what the kernel raised."""
    return types.int64(*[types.int64] * 10), _call


@_intrinsic
def call_on_block(
    _: Any,
    function: Any,
    block: Any,
    frame: Any,
    bases: Any,
    values: Any,
    start: Any,
    stop: Any,
    start2: Any,
    stop2: Any,
    number: Any,
    worker: Any,
    failure: Any,
) -> tuple[Signature, Generator]:
    """The same for a chunk that is a block: a range along each of two axes."""
    return types.int64(*[types.int64] * 12), _call


def _call(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kind = ir.FunctionType(_I32, [_I64] * (len(args) - 1))
    function = builder.inttoptr(args[0], kind.as_pointer())
    return builder.sext(builder.call(function, args[1:]), _I64)

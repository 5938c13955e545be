"""Plans, tasks and results as bytes, with the segments that they refer to."""

from __future__ import annotations

import functools
import io
import pickle
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from shmcompute.backends.processes.protocol.messages import PackedPlan, Result, Task
from shmcompute.backends.processes.protocol.pickler import Pickler, ResultPickler, TaskPickler
from shmcompute.chunking import Chunk, Chunks, Grid
from shmcompute.errors import KernelSerializationError, ShmComputeError
from shmcompute.kernels import Kernel, NumbaKernel, PackedOnce
from shmcompute.plans import Link, Plan
from shmcompute.storage import Handle, adopt, mapped
from shmcompute.system.call_context import CallContext
from shmcompute.tasks import Function, describe

_kernels = PackedOnce()  # a jitted kernel is what it was when Numba compiled it
# Tasks of one map have one function, which is pickled once.
_functions: weakref.WeakKeyDictionary[Function, tuple[bytes, frozenset[Handle]]] = (
    weakref.WeakKeyDictionary()
)

_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})
_NONE: frozenset[Handle] = frozenset()
_NOTHING = pickle.dumps(None, pickle.HIGHEST_PROTOCOL)


def pack(plan: Plan) -> PackedPlan:
    """The plan as bytes.

    Raises
    ------
    KernelSerializationError
        If the kernel or an argument can't be pickled.
    """
    links, handles = [], _NONE
    for link in plan.detached_links:  # numbers, and where arrays are, come with each call
        kernel, captured = _pack_kernel(link.kernel)
        arguments, passed = _dumps(link.arguments, _argument_of(link.kernel))
        links.append((kernel, arguments))
        handles |= captured | passed
    types = tuple(map(type, plan.values))
    journal, kept = _dumps(plan.journal, lambda: "a journal")
    sweeps, state = _dumps(plan.sweeps, lambda: "the state of sweeps")
    chunks = _chunks_to_send(plan.chunks)
    size = sum(map(len, chain.from_iterable(links))) + 16 * len(chunks or ())
    context = _pack_context(plan.context)
    return PackedPlan(
        tuple(links),
        tuple(_kinds(link, plan) for link in plan.links),
        types,
        chunks,
        plan.numbers,
        journal,
        sweeps,
        plan.debug,
        context,
        handles | kept | state,
        size,
    )


def _chunks_to_send(chunks: Sequence[Chunk]) -> Sequence[Chunk] | None:
    """Those that a worker is told with the plan, as no frame tells them."""
    if isinstance(chunks, Grid):
        return None if chunks.is_ruled else chunks
    return None if isinstance(chunks, Chunks) else tuple(chunks)


def _kinds(link: Link, plan: Plan) -> Hashable:
    """What is equal for kernels of the same arguments' types, on which their machine code rests."""
    return None if link.kinds is None else link.kinds.fingerprints or plan.form.number


def unpack(packed: PackedPlan) -> Plan:
    """The plan, in a worker that has mapped its segments; detached from its arrays."""
    values = tuple(kind() for kind in packed.types)  # until a call brings its own
    links = []
    for kernel, arguments in packed.links:
        bound = replace(pickle.loads(arguments), values=values)
        links.append(Link(pickle.loads(kernel), bound))
    journal = pickle.loads(packed.journal)
    return Plan(
        tuple(links),
        packed.chunks or (),
        values,
        static=True,
        journal=journal,
        sweeps=pickle.loads(packed.sweeps),
        debug=packed.debug,
        numbers=packed.numbers,
        context=unpack_context(packed.context),
    )


@functools.lru_cache(maxsize=8)
def _pack_context(context: CallContext | None) -> bytes:
    return _dumps(context, lambda: "the context of a call (np.seterrcall)")[0]


@functools.lru_cache(maxsize=8)
def unpack_context(packed: bytes) -> CallContext | None:
    """The context that a call is to have."""
    found: CallContext | None = pickle.loads(packed)
    return found


def pack_task(
    function: Function,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    context: CallContext | None = None,
) -> Task:
    """A call of a function as bytes.

    Raises
    ------
    KernelSerializationError
        If the function or an argument can't be pickled.
    """
    packed = _functions.get(function)
    if packed is None:
        packed = _dumps(function.function, lambda: f"the function {function.name}", TaskPickler)
        _functions[function] = packed
    code, captured = packed
    call = args, keywords
    if _PLAIN.issuperset(map(type, chain(args, keywords.values()))):  # the quick way
        arguments, passed = pickle.dumps(call, pickle.HIGHEST_PROTOCOL), _NONE
    else:
        arguments, passed = _dumps(call, lambda: f"an argument of {function.name}", TaskPickler)
    return Task(code, arguments, _pack_context(context), captured | passed)


def pack_result(value: Any, function: Any) -> Result:
    """What a task returned, with the segments in it that this process owns.

    Raises
    ------
    KernelSerializationError
        If it can't be pickled.
    """
    if type(value) in _PLAIN:
        return Result(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), _NONE)
    try:
        packed, handles = _pickled(value, ResultPickler)
    except ShmComputeError:
        raise
    except Exception as error:  # pickling runs any code
        raise KernelSerializationError(
            f"{describe(function)} ran, but its result, {type(value).__name__}, can't be "
            f"sent back: {type(error).__name__}: {error}. Return what pickles, or write into a "
            "SharedArray"
        ) from error
    given = frozenset(handle for handle in handles if _own(handle))
    return Result(packed, given)


def unpack_result(result: Result, function: Function) -> Any:
    """What a task returned; arrays that its worker made are this process's from now on."""
    adopted = [adopt(handle) for handle in result.given]
    try:
        return pickle.loads(result.value)
    except BaseException as error:  # unpickling runs any code
        raise KernelSerializationError(
            f"the result of {function.name} does not unpickle here: {type(error).__name__}: {error}"
        ) from error
    finally:
        del adopted  # what holds the result holds its arrays


def _own(handle: Handle) -> bool:
    segment = mapped(handle)
    return segment is not None and segment.owner


def _pack_kernel(kernel: Kernel) -> tuple[bytes, frozenset[Handle]]:
    def what() -> str:
        return f"kernel {kernel.name}"

    if not isinstance(kernel, NumbaKernel) or kernel.function is not kernel.dispatcher:
        return _dumps(kernel, what)
    return _kernels.of(kernel.dispatcher, lambda: _dumps(kernel, what))


def _argument_of(kernel: Kernel) -> Callable[[], str]:
    return lambda: f"an argument of kernel {kernel.name}"


def _dumps(
    value: Any, what: Callable[[], str], pickler: type[Pickler] = Pickler
) -> tuple[bytes, frozenset[Handle]]:
    if value is None:  # a journal, sweeps and a context that most plans do not have
        return _NOTHING, _NONE
    try:
        return _pickled(value, pickler)
    except ShmComputeError:
        raise
    except Exception as error:
        raise KernelSerializationError(
            f"{what()} can't be sent to a worker process: {type(error).__name__}: {error}. Make "
            'what it refers to inside the kernel, or choose backend="threads"'
        ) from error


def _pickled(value: Any, kind: type[Pickler]) -> tuple[bytes, frozenset[Handle]]:
    buffer = io.BytesIO()
    pickler = kind(buffer)
    pickler.dump(value)
    return buffer.getvalue(), frozenset(pickler.handles)

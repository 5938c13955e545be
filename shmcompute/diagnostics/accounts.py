"""What is to be said of a plan's kernels, arguments and chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.chunking import (
    Bound,
    ChunkGenerator,
    ChunkNumber,
    ChunkStart,
    ChunkStop,
    Constant,
    OutputRow,
    PaddedPart,
    Part,
    Scalar,
    ScratchRow,
    WholeArray,
    bytes_of,
)
from shmcompute.diagnostics.explanation import (
    ArgumentAccount,
    ChunkAccount,
    KernelAccount,
    Order,
    VersionAccount,
    Way,
)
from shmcompute.kernels import NumbaKernel, UfuncKernel
from shmcompute.plans import Link, Options, Plan
from shmcompute.storage import locate
from shmcompute.system import cores
from shmcompute.typing import Array

_SEEN: dict[type[Any], str] = {
    ChunkStart: "the chunk's start",
    ChunkStop: "the chunk's stop",
    ChunkNumber: "the chunk's number",
    ChunkGenerator: "a random generator of the chunk's own",
    Scalar: "a number, which may differ in the next call",
    Constant: "as it is",
    WholeArray: "whole",
    ScratchRow: "scratch of the worker's own",
    OutputRow: "a row for each chunk, made by the call",
}


def kernel_account(
    link: Link, plan: Plan, reason: str | None, source: str | None, before: frozenset[int]
) -> KernelAccount:
    """Of one kernel; `before`: the ids of the versions that had been compiled before."""
    kernel = link.kernel
    dispatcher = kernel.dispatcher if isinstance(kernel, NumbaKernel) else None
    return KernelAccount(
        kernel.name,
        _way(link, reason),
        reason,
        source,
        () if dispatcher is None else tuple(_versions(dispatcher, before)),
        tuple(_argument(link, plan, i) for i in range(len(link.arguments.bound))),
    )


def _way(link: Link, reason: str | None) -> Way:
    if reason is None:
        return "machine code"
    if isinstance(link.kernel, NumbaKernel):
        return "dispatcher"
    return "ufunc" if isinstance(link.kernel, UfuncKernel) else "Python"


def versions_of(dispatchers: Sequence[Any]) -> frozenset[int]:
    """The ids of all versions of these and of their variants, so far."""
    return frozenset(id(one) for each in dispatchers for one in dict.values(each.overloads))


def _versions(dispatcher: Dispatcher, before: frozenset[int]) -> list[VersionAccount]:
    return [
        VersionAccount(_signature(types), _seconds(compiled), id(compiled) not in before)
        for types, compiled in dict.items(dispatcher.overloads)
    ]


def _signature(types: tuple[Any, ...]) -> str:
    return f"({', '.join(map(str, types))})"


def _seconds(compiled: Any) -> float | None:
    """What compiling took, as Numba has measured; None for what came from a cache."""
    seconds: float | None = ((compiled.metadata or {}).get("timers") or {}).get("compiler_lock")
    return seconds


def _argument(link: Link, plan: Plan, position: int) -> ArgumentAccount:
    argument = link.arguments.bound[position]
    view = array_of(argument)
    if view is None:
        value = link.arguments.sample()[position] if plan.chunks else None
        return ArgumentAccount(position, _seen(argument), type(value).__name__, 0, None)
    return ArgumentAccount(
        position,
        _seen(argument),
        f"{view.dtype} {view.shape}",
        view.nbytes,
        _memory(argument, view),
        copied_bytes(argument, plan),
    )


def array_of(argument: Bound) -> Array | None:
    """The array that an argument is, or is cut from."""
    if isinstance(argument, (Part, WholeArray)):
        return argument.view
    value = argument.value if isinstance(argument, Constant) else None
    return value if isinstance(value, np.ndarray) else None


def _seen(argument: Bound) -> str:
    if not isinstance(argument, Part):
        shared = isinstance(argument, WholeArray) and argument.writes
        return "shared with all chunks" if shared else _SEEN[type(argument)]
    how = "split" if argument.writes else "read"
    halo = f" with a halo of {argument.margin}" if argument.margin else ""
    return f"{how} along axis {argument.axis}{halo}"


def _memory(argument: Bound, view: Array) -> str:
    place = None if isinstance(argument, Constant) else locate(view)
    return "private" if place is None else place[0].handle.kind


def copied_bytes(argument: Bound, plan: Plan) -> int:
    """Bytes that are copied in each call for an argument."""
    if isinstance(argument, PaddedPart):
        along = sum(argument.copied(start, stop) for start, stop in plan.chunks)
        return along * argument.view.nbytes // max(1, argument.length)
    view = array_of(argument) if isinstance(argument, Constant) else None
    return 0 if view is None else view.nbytes


def chunk_account(plan: Plan, options: Options, workers: int) -> ChunkAccount:
    """How a plan's work is cut, for so many workers."""
    lengths = [stop - start for start, stop in plan.chunks] or [0]
    links = [link.arguments for link in plan.links]
    whole = max(1, plan.links[0].arguments.length)
    return ChunkAccount(
        len(plan.chunks),
        min(lengths),
        max(lengths),
        bytes_of(links) * max(lengths) // whole,
        options.schedule,
        min(workers, len(plan.chunks)),
        tuple(plan.chunks),
    )


def order_of(plan: Plan) -> Order:
    """In which order the kernels of a chain go."""
    if not plan.apart:
        return "chunk by chunk"
    return "one after another" if plan.skewed is None else "one behind the other"


def traffic(plan: Plan, chunks: ChunkAccount) -> tuple[int, int]:
    """Bytes that chunks read and write, if each kernel goes over its arrays once.

    What one kernel of a chain leaves in a core's cache the next one finds there.
    """
    read: dict[int, list[int]] = {}
    written: dict[int, list[int]] = {}
    for link in plan.links:
        for position, argument in enumerate(link.arguments.bound):
            view = array_of(argument)
            if view is None:
                continue
            place = view.ctypes.data
            times = chunks.count if _seen_by_each(argument, view) else 1
            if not _is_overwritten(link, position):
                read.setdefault(place, []).append(times * view.nbytes)
            if getattr(argument, "writes", False):
                written.setdefault(place, []).append(view.nbytes)
    cached = plan.skewed is not None or (not plan.apart and chunks.nbytes <= cores.cache())
    combined = max if cached else sum
    return sum(map(combined, read.values())), sum(map(combined, written.values()))


def _seen_by_each(argument: Bound, view: Array) -> bool:
    """Whether each chunk fetches all of it from memory."""
    return not isinstance(argument, Part) and view.nbytes > cores.cache()


def _is_overwritten(link: Link, position: int) -> bool:
    """Whether a kernel is known to write an argument without reading it."""
    kernel = link.kernel
    if not isinstance(kernel, UfuncKernel):
        return False
    return position in kernel.outputs and position not in kernel.inputs

"""`build_plan`: a plan out of a kernel, its arguments and options; all is checked, nothing runs."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from shmcompute import config
from shmcompute.arrays import SharedArray
from shmcompute.chunking import MARKERS, Arguments, Chunk, bind, bytes_of, check_chain, chunks
from shmcompute.kernels import kernel as kernel_of
from shmcompute.plans.debug_warnings import warn_of_races
from shmcompute.plans.plan import Link, Plan
from shmcompute.system import cores

Calls = list[tuple[Any, ...]]  # each a kernel and its arguments


class Options(NamedTuple):
    """How a call is cut and run; see `parallel_apply`."""

    axis: int = 0
    chunksize: int | None = None
    schedule: str = "static"
    retries: int = 0
    debug: bool = False


class Target(Protocol):
    """What a plan must know of the backend that is to run it."""

    workers: int
    shared: bool
    threaded: bool


def build_plan(calls: Calls, options: Options, target: Target) -> Plan:
    """The plan of these calls, a chain if there are several.

    Raises
    ------
    TypeError, ValueError, KernelTypeError
        As `parallel_apply`, before anything runs.
    """
    axis, chunksize, schedule, retries, debug = options
    if type(retries) is not int or retries < 0:
        retries = config.count("retries", retries, 0)
    links = _links(calls, axis, target, debug)
    cut = _cut(links, target.workers, schedule, chunksize, _bytes_of_chunk(links, retries))
    for link in links:
        link.kernel.check(link.arguments, cut)
    values = links[-1].arguments.values
    plan = Plan(links, cut, values, schedule == "static", retries, debug=debug)
    if debug:
        warn_of_races(plan)
    return plan


def calls_of(kernel: Any, args: tuple[Any, ...]) -> Calls:
    """The kernel, or each of a chain, with its arguments: its own, where it brings them."""
    if not isinstance(kernel, list):
        return [(kernel, *args)]
    if not kernel:
        raise ValueError("kernel: expected at least one kernel in the chain, got []")
    return [link if isinstance(link, tuple) and link else (link, *args) for link in kernel]


def shared_arrays(calls: Calls) -> tuple[SharedArray, ...]:
    """The SharedArrays among the arguments, marked or not."""
    values = [arg.value if isinstance(arg, MARKERS) else arg for _, *args in calls for arg in args]
    return tuple(value for value in values if isinstance(value, SharedArray))


def _links(calls: Calls, axis: int, target: Target, debug: bool) -> tuple[Link, ...]:
    links: list[Link] = []
    for function, *args in calls:
        earlier = links[-1].arguments.values if links else ()
        arguments = bind(args, axis, shared=target.shared, earlier=earlier)
        kernel = kernel_of(function, arguments)
        kernel = kernel.bounded() if debug else kernel
        links.append(Link(kernel.threaded() if target.threaded else kernel, arguments))
    if len(links) > 1:
        _check_chain([link.arguments for link in links])
    return tuple(links)


def _check_chain(links: list[Arguments]) -> None:
    accesses = [arguments.accesses() for arguments in links]
    check_chain(accesses, [arguments.length for arguments in links])


def _bytes_of_chunk(links: tuple[Link, ...], retries: int) -> int | None:
    """Bytes of a chunk by default: few enough to stay in a core's cache; None: any.

    In a chain from the first kernel to the last. With retries from the copy to the kernel, which
    a cache that cores share does as well; and each chunk takes Python some steps: so twice as many.
    """
    if len(links) > 1:
        return cores.cache() // 2
    return 2 * cores.cache() if retries else None


def _cut(
    links: tuple[Link, ...],
    workers: int,
    schedule: str,
    chunksize: int | None,
    chunk_bytes: int | None,
) -> tuple[Chunk, ...]:
    length = links[0].arguments.length
    if chunk_bytes is not None and chunksize is None and schedule != "guided":
        total = bytes_of([link.arguments for link in links])
        chunksize = max(1, min(chunk_bytes * length // max(1, total), -(-length // workers)))
    return chunks(length, workers, schedule, chunksize)

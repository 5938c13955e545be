"""`build_plan`: a plan of a kernel, its arguments and options. Checks everything, runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from shmcompute import config
from shmcompute.arrays import SharedArray
from shmcompute.chunking import (
    ARRAY_MARKERS,
    Arguments,
    Chunk,
    ChunkGenerator,
    ChunkNumber,
    Constant,
    OutputRow,
    PaddedPart,
    Setting,
    SweepNumber,
    WholeArray,
    bind,
    bytes_of,
    chunks,
    cut_ends,
    lent_array,
    meets_neighbours,
)
from shmcompute.kernels import Captured, Captures, fingerprints
from shmcompute.kernels import kernel as kernel_of
from shmcompute.plans.debug_warnings import warn_of_races
from shmcompute.plans.options import Options, Target
from shmcompute.plans.plan import Link, Plan
from shmcompute.storage import locate
from shmcompute.system import cores
from shmcompute.typing import Array

# Chunks for each worker where somebody watches and asks for no other size: coarser, and a bar would
# stand still; finer, and Python kernels would be called for nothing.
FINE = 64
DRAWING = 128  # chunks where kernels draw random numbers; each costs some 30 us

_TOLD = frozenset({ChunkNumber, OutputRow})  # of chunks

Calls = list[tuple[Any, ...]]  # a kernel and its arguments each


def build_plan(calls: Calls, options: Options, target: Target) -> Plan:
    """The plan of these calls, a chain if there are several.

    Raises
    ------
    TypeError, ValueError, KernelTypeError
        As `parallel_apply`, before anything runs.
    """
    retries = options.retries
    if type(retries) is not int or retries < 0:
        retries = config.count("retries", retries, 0)
    links = bind_links(calls, options, target)
    _refuse_sweep(links)
    apart = len(links) > 1 and _meet_neighbours(links, retries)
    chunk_bytes = None if apart else _bytes_of_chunk(links, retries)
    cut = _cut(links, options, target.workers, chunk_bytes)
    links = tuple(link.checked(cut) for link in links)
    values, static = links[-1].arguments.values, options.schedule == "static"
    plan = Plan(links, cut, values, static, retries, debug=options.debug)
    if apart:
        from shmcompute.plans.sweep_plan import skew  # noqa: PLC0415  # few chains need it

        plan = replace(plan, apart=True, skewed=skew(links, options, target))
    if options.debug or retries:
        plan = _with_captured(plan, target)
    if options.debug:
        warn_of_races(plan)
        plan = replace(plan, captured=(*plan.captured, *_shared_by_all(links)))
    return plan


def rebuild_plan(known: Plan, args: Sequence[Any], options: Options, target: Target) -> Plan | None:
    """The plan of arguments for which there is a form; None if they are of other kinds.

    What a form has is not looked at again: so it takes a tenth of the time of `build_plan`.

    Raises
    ------
    TypeError, ValueError, KernelTypeError
        As `parallel_apply`, before anything runs.
    """
    kernel, kinds = known.links[0].kernel, known.links[0].kinds
    arguments = bind(args, _setting(options, target))
    if Constant in arguments.classes:
        return None  # a plain array that is copied, or a number too many: its value is the form's
    if arguments.width is not None:
        cut = _cut_blocks([arguments], options, target.workers)
    else:
        extent = arguments.start, arguments.start + arguments.length
        cut = cut_range(known.links, options, extent, target.workers)
    if kinds is None:
        kernel.check(arguments, cut)
    elif kinds.fingerprints is None or fingerprints(arguments.samples(cut)) != kinds.fingerprints:
        return None
    return known.reattached(arguments, cut)


def cut_range(
    links: Sequence[Link], options: Options, extent: Chunk, workers: int
) -> Sequence[Chunk]:
    """The chunks of a range, the same for a new plan and for one that gets another range."""
    first, last = extent
    length, fine = max(0, last - first), per_worker(links, options)
    cut = chunks(length, workers, options.schedule, options.chunksize, first, fine)
    if draws(links):
        # Neither the machine nor how the call is run may decide which numbers are drawn.
        return chunks(length, DRAWING, "static", options.chunksize, first)
    return cut


def draws(links: Sequence[Link]) -> bool:
    """Whether a kernel draws random numbers: other ones where chunks are cut otherwise."""
    return any(ChunkGenerator in link.arguments.classes for link in links)


def per_worker(links: Sequence[Link], options: Options) -> int | None:
    """How many chunks a worker gets without a chunksize; None for what is usual.

    Who watches sees more of it with finer ones. But who is told of chunks, by their numbers or by a
    row for each, is to get the same whether watched or not.
    """
    if not options.fine or any(link.arguments.classes & _TOLD for link in links):
        return None
    return FINE


def _setting(options: Options, target: Target) -> Setting:
    return Setting(options.axis, target.shared, target.workers, options.extent)


def _refuse_sweep(links: Sequence[Link]) -> None:
    """Raise where a kernel is to be told of a sweep, and there is none."""
    if any(SweepNumber in link.arguments.classes for link in links):
        raise ValueError("sc.sweep: there are sweeps in sc.parallel_iterate alone")


def _with_captured(plan: Plan, target: Target) -> Plan:
    """The plan that knows what its kernels may write beside their arguments.

    Raises
    ------
    ValueError
        If such a thing is shared, and with retries would have to be put back.
    """
    captures = [_captures(link) for link in plan.links]
    arrays = [array for found in captures for array in found.arrays]
    if target.shared:  # of others a worker has a copy
        arrays = [one for one in arrays if locate(one.array) is not None]
        common = [*arrays, *_shared_by_all(plan.links)]
        if plan.retries and common:
            where, array = common[0]
            raise ValueError(
                f"retries={plan.retries}: kernel {plan.name} brings a shared array along, {where} "
                f"(shape {array.shape}, {array.dtype}), of which all chunks may write all: what a "
                "dead worker has changed there can't be told from what others have. Pass what is "
                "only read as an argument, sc.whole(x), or make that view read-only; else call it "
                "without retries"
            )
    careful = any(found.careful for found in captures)
    return replace(plan, captured=tuple(arrays), careful=careful)


def _shared_by_all(links: Sequence[Link]) -> list[Captured]:
    """The arguments that all chunks may write."""
    return [
        Captured(f"argument {position}", argument.view)
        for link in links
        for position, argument in enumerate(link.arguments.bound)
        if isinstance(argument, WholeArray) and argument.writes and argument.view.size
    ]


def _captures(link: Link) -> Captures:
    """What a kernel brings along, or finds within containers and objects that it is passed."""
    found = link.kernel.captures()
    for position, argument in enumerate(link.arguments.bound):
        if isinstance(argument, Constant) and not isinstance(argument.value, np.ndarray):
            found.look(argument.value, f"argument {position}")
    return found


def calls_of(kernel: Any, args: tuple[Any, ...]) -> Calls:
    """The kernel, or each kernel of a chain, with its own arguments or else those of the call."""
    if not isinstance(kernel, list):
        return [(kernel, *args)]
    if not kernel:
        raise ValueError("kernel: expected at least one kernel in the chain, got []")
    return [link if isinstance(link, tuple) and link else (link, *args) for link in kernel]


class Given(NamedTuple):
    """The arrays among the arguments of calls, marked or not, and those that a partial brings."""

    shared: list[SharedArray]
    plain: list[Array]  # ndarrays, and those that others lend


def arrays_of(calls: Calls) -> Given:
    """The arrays that calls are given."""
    given = Given([], [])
    for kernel, *args in calls:
        for arg in (*args, *kernel.args) if isinstance(kernel, partial) else args:
            value = arg.value if isinstance(arg, ARRAY_MARKERS) else arg
            if isinstance(value, SharedArray):
                given.shared.append(value)
            elif isinstance(value, np.ndarray):
                given.plain.append(value)
            elif (view := lent_array(value)) is not None:
                given.plain.append(view)
    return given


def _meet_neighbours(links: Sequence[Link], retries: int) -> bool:
    """Whether a link of a chain sees what another does to neighbouring chunks.

    Raises
    ------
    ValueError
        For links that can't be a chain, and with retries: what a dead worker's chunk held before
        the first link its neighbours have long built upon.
    """
    bound = [link.arguments for link in links]
    found = meets_neighbours([one.accesses() for one in bound], [one.lengths for one in bound])
    if found and retries:
        raise ValueError(
            f"retries={retries}: a link of the chain sees what another writes in neighbouring "
            "chunks, which may have gone on from what a chunk holds before it is put back; make "
            "each link a call of its own, with retries"
        )
    return found


def bind_links(calls: Calls, options: Options, target: Target) -> tuple[Link, ...]:
    """The kernels, each with its bound arguments; they are not checked against each other."""
    links: list[Link] = []
    setting = _setting(options, target)
    for function, *args in calls:
        earlier = links[-1].arguments.values if links else ()
        arguments = bind(args, setting._replace(link=len(links)), earlier=earlier)
        kernel = kernel_of(function, arguments)
        kernel = kernel.bounded() if options.debug else kernel
        links.append(Link(kernel.threaded() if target.threaded else kernel, arguments))
    return tuple(links)


def _bytes_of_chunk(links: tuple[Link, ...], retries: int) -> int | None:
    """How large a chunk may be by default, to stay in a core's cache; None: as large as it comes.

    In a chain it is to stay there from the first kernel to the last. With retries it is to stay
    there from the copy to the kernel; a cache that cores share does that as well, and each chunk
    takes Python some steps, so these are larger.
    """
    if len(links) > 1:
        return cores.cache() // 2
    return 2 * cores.cache() if retries else None


def _cut(
    links: tuple[Link, ...], options: Options, workers: int, chunk_bytes: int | None
) -> Sequence[Chunk]:
    arguments = [link.arguments for link in links]
    if arguments[0].width is not None:
        return _cut_blocks(arguments, options, workers)
    length, start = arguments[0].length, arguments[0].start
    is_free = options.chunksize is None and options.schedule != "guided" and not draws(links)
    if chunk_bytes is not None and is_free and (total := bytes_of(arguments)):  # 0 of a range
        most = -(-length // (workers * (per_worker(links, options) or 1)))
        chunksize = max(1, min(chunk_bytes * length // total, most))
        options = options._replace(chunksize=chunksize)
    cut = cut_range(links, options, (start, start + length), workers)
    padded = [part for one in arguments for part in one.bound if isinstance(part, PaddedPart)]
    return cut_ends(cut, padded) if padded else cut


def _cut_blocks(arguments: Sequence[Arguments], options: Options, workers: int) -> Sequence[Chunk]:
    from shmcompute.plans.block_cut import cut_blocks  # noqa: PLC0415  # for few programs

    schedule, retries = options.schedule, options.retries > 0
    return cut_blocks(
        arguments, workers, schedule, options.chunksize, drawing=DRAWING, retries=retries
    )

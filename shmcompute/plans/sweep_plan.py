"""Plans of sweeps in machine code: of a call that is repeated, or of a chain that goes skewed."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import chain
from typing import Any

from shmcompute.chunking import (
    Arguments,
    ChunkNumber,
    OutputRow,
    PaddedPart,
)
from shmcompute.kernels import sweeping
from shmcompute.plans.options import Options, Target
from shmcompute.plans.plan import Link, Plan
from shmcompute.plans.sweep_schedule import LONGEST, Footprint, Needs, needs_of, schedule
from shmcompute.plans.sweep_state import StateMemory, Sweeps
from shmcompute.storage import Segment, locate
from shmcompute.system import cores
from shmcompute.typing import Array

SHORTEST = 3  # indices: of a shorter array the types of parts may be those of the whole


def skew(links: Sequence[Link], options: Options, target: Target) -> Plan | None:
    """The plan of a chain whose links go one behind the other, by what they see of neighbours.

    It is a single sweep in a block of time of its own. None if machine code can't run it.
    """
    return plan_of_sweeps((*links, *links), options, target, longest=1)


def plan_of_sweeps(
    links: tuple[Link, ...], options: Options, target: Target, longest: int = LONGEST
) -> Plan | None:
    """The plan of even and odd sweeps in turn; None if machine code can't run it as asked.

    Parameters
    ----------
    links : tuple of Link
        Those of an even sweep, then those of an odd one.
    longest : int
        Sweeps of a block of time, at most.
    """
    if options.schedule != "static" or options.debug:
        return None
    if isinstance(options.axis, tuple) or isinstance(options.chunksize, tuple):
        return None  # blocks in two dimensions, or what `build_plan` refuses
    length, parts = links[0].arguments.length, target.workers
    shortest = 1 if options.extent is not None else SHORTEST
    if length < max(shortest, parts) or not all(map(_is_plain, links)):
        return None
    if len({link.arguments.length for link in links}) > 1:
        return None
    touched = [_footprints(link.arguments) for link in links]
    order = schedule(
        length,
        parts,
        _needs(touched, length),
        len(links) // 2,
        bytes_an_index=max(1, _bytes_of(touched, length) // length),
        cache=cores.cache(),
        slab=options.chunksize,
        padded=any(PaddedPart in link.arguments.classes for link in links),
        start=links[0].arguments.start,
        longest=longest,
    )
    sweeps = Sweeps(order, StateMemory(sweeping.state_words(parts), target.shared), _spin(parts))
    links = tuple(link.checked(sweeps.typical) for link in links)
    cut = tuple(zip(order.edges, order.edges[1:], strict=False))
    values = links[-1].arguments.values
    plan = Plan(links, cut, values, static=True, sweeps=sweeps)
    return plan if plan.native is not None else None


def _spin(parts: int) -> int:
    """Iterations that who waits may spin: who does so takes a core."""
    return sweeping.SPINS if parts <= cores.granted() else 0


def _is_plain(link: Link) -> bool:
    """Whether its arguments know nothing of chunks, whose number and size are then all one."""
    return link.arguments.classes.isdisjoint({ChunkNumber, OutputRow})


def _needs(touched: Sequence[Sequence[Footprint]], length: int) -> Needs | None:
    try:
        return needs_of(touched, length)
    except ValueError:  # so a kernel sees more than its neighbours
        return None


def _bytes_of(touched: Sequence[Sequence[Footprint]], length: int) -> int:
    """Bytes of all that moves along the axis, each counted once."""
    moving = (one for one in chain.from_iterable(touched) if one.stride)
    total, reached = 0, None
    for low, high in sorted(one.hull(length) for one in moving):
        start = low if reached is None else max(low, reached)
        total += max(0, high - start)
        reached = high if reached is None else max(high, reached)
    return total


def _footprints(arguments: Arguments) -> list[Footprint]:
    """What a kernel touches of each array."""
    found = []
    for access in arguments.accesses():
        part = arguments.bound[access.position]
        if isinstance(part, PaddedPart) and _stays_near(part):
            # What stands beyond an end is no farther within than it is without.
            depth = max(part.before, part.after)
            found.append(_footprint(part.view, part.axis, False, depth, depth))
        else:
            ((axis, margin),) = access.cuts()
            found.append(_footprint(access.view, axis, access.writes, 0, margin))
    return found


def _stays_near(part: PaddedPart) -> bool:
    """Whether what stands beyond an end of an array is taken from that end."""
    before, after = part.ends
    far = part.length - 1 - part.after
    return bool((before <= part.before).all() and ((after < 0) | (after >= far)).all())


def _memory(segment: Segment) -> Hashable:
    """What mappings of the same memory have in common: a file may be mapped twice."""
    handle: Any = segment.handle
    return (handle.serial, handle.header) if handle.kind == "file" else handle


def _footprint(view: Array, axis: int | None, writes: bool, before: int, after: int) -> Footprint:
    """The bytes from the lowest to the highest; two mappings of a segment have one address.

    An index sees itself, and so many before and after it.
    """
    place = locate(view)
    address: int = view.__array_interface__["data"][0]
    if place is not None:
        address = (hash(_memory(place[0])) << 64) + place[1]
    low, high = address, address + view.itemsize
    for number, (size, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        ways = (-before * stride, after * stride) if number == axis else (0, (size - 1) * stride)
        low, high = low + min(0, *ways), high + max(0, *ways)
    return Footprint(low, high, 0 if axis is None else view.strides[axis], writes)

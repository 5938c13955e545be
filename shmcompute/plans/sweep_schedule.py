"""The order of work of many sweeps over the same arrays: pure arithmetic, in blocks of time.

A *level* is one kernel of one sweep: with L links in a chain, level ``t * L + l`` is link l of
sweep t. Done level by level, each crosses all memory. Here a part of the axis goes through the
levels of several sweeps, a slab at a time, while it is in a core's cache; a kernel finds just what
it would find sweep by sweep, so the bits are equal.

Parts meet by *split tiling* (T. Grosser et al., "Split tiling for GPUs", GPGPU-6, 2013): in the
first phase of a block of time each part does what needs nothing of its neighbours, a trapezoid that
shrinks from level to level; in the second the gaps between the trapezoids are filled, which needs
nothing but them. All that a level needs, and all that it must not overwrite yet, is a *reach*:
how far to the left and to the right an earlier level must have come. With the same two numbers
slabs are skewed, each level behind the one before it by as much as it needs to the right.

`kernels.sweeping` walks the same way in machine code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LONGEST = 256  # sweeps of a block of time,
FEW = 16  # and how many it may be however long they take
LARGEST = 4 << 30  # bytes that more of them may go through: who has to stop does so between phases
STEEPEST = 8  # a part is at least so many times as long as its two slopes together


class Reach(NamedTuple):
    """How far an index sees along the axis; of a level, how far an earlier one must have come."""

    left: int
    right: int


class Footprint(NamedTuple):
    """The bytes that a kernel touches of one argument for index 0; for others, so much further."""

    low: int
    high: int
    stride: int
    writes: bool

    def hull(self, length: int) -> tuple[int, int]:
        """The bytes of all indices."""
        way = self.stride * (length - 1)
        return self.low + min(0, way), self.high + max(0, way)


class Step(NamedTuple):
    """One call of a kernel."""

    level: int
    start: int
    stop: int


def reach_of(one: Footprint, other: Footprint) -> Reach | None:
    """How far from an index of `one` are those of `other` that touch the same bytes.

    Raises
    ------
    ValueError
        If that differs from index to index.
    """
    if one.stride != other.stride or one.stride <= 0:
        raise ValueError("arguments that share memory move through it at unlike strides")
    # Index i of the one and j of the other meet where low + i * stride < other.high + j * stride,
    # and the same with the parts exchanged.
    first = (one.low - other.high) // one.stride + 1
    last = -((other.low - one.high) // one.stride) - 1
    return Reach(max(0, -first), max(0, last)) if first <= last else None


Needs = Sequence[Sequence[Reach | None]]  # [level][earlier level], each of two sweeps


def needs_of(levels: Sequence[Sequence[Footprint]], length: int) -> Needs:
    """What each level of two sweeps needs of each, given what each touches.

    Raises
    ------
    ValueError
        If a level needs something of another that moves at another stride.
    """
    return [[_need(level, earlier, length) for earlier in levels] for level in levels]


def _need(level: Sequence[Footprint], earlier: Sequence[Footprint], length: int) -> Reach | None:
    pairs = [(a, b) for a in level for b in earlier if a.writes or b.writes]
    meeting = [pair for pair in pairs if _meet(*pair, length)]
    found = [reach for pair in meeting if (reach := reach_of(*pair)) is not None]
    if not found:
        return None
    return Reach(max(reach.left for reach in found), max(reach.right for reach in found))


def _meet(one: Footprint, other: Footprint, length: int) -> bool:
    """Whether they may touch the same memory."""
    (low, high), (start, stop) = one.hull(length), other.hull(length)
    return low < stop and start < high


def slopes(needs: Needs, sweeps: int) -> list[Reach]:
    """How far the trapezoid of each level has shrunk at its left and its right end.

    Parameters
    ----------
    needs : sequence
        Of the levels of two sweeps, or of one if all are alike.
    sweeps : int
        Of a block of time.
    """
    period = len(needs)
    links = period // 2
    found: list[Reach] = []
    for level in range(sweeps * links):
        # Earlier ones than these are needed by these themselves, at the least as far.
        before = range(max(0, level - period), level)
        left, right = found[-1] if found else (0, 0)
        for earlier in before:
            need = needs[level % period][earlier % period]
            if need is not None:
                left = max(left, found[earlier].left + need.left)
                right = max(right, found[earlier].right + need.right)
        found.append(Reach(left, right))
    return found


@dataclass(frozen=True)
class Schedule:
    """Who does what, and when.

    Parameters
    ----------
    edges : tuple of int
        Where parts begin, and where the last one ends. There is a worker for each part.
    links : int
        Kernels of a sweep.
    sweeps : int
        Of a block of time; 1 where each kernel has a phase of its own.
    slab : int
        Indices of a slab.
    slopes : tuple of Reach
        Of each level of a block. None: there are no blocks of time.
    """

    edges: tuple[int, ...]
    links: int
    sweeps: int
    slab: int
    slopes: tuple[Reach, ...]

    @property
    def parts(self) -> int:
        return len(self.edges) - 1

    @property
    def blocked(self) -> bool:
        """Whether sweeps go in blocks of time."""
        return bool(self.slopes)

    def phases(self, times: int) -> int:
        """Phases of so many sweeps: a part begins one when its neighbours have ended the last."""
        return 2 * -(-times // self.sweeps) if self.blocked else times * self.links

    def done(self, phases: int, times: int) -> int:
        """Sweeps that are over after so many phases, of so many in all."""
        if self.blocked:
            return min(times, phases // 2 * self.sweeps)
        return phases // self.links

    def waits_for(self, part: int) -> list[int]:
        """The parts whose last phase must have ended before this one begins its next."""
        if not self.blocked:
            return [other for other in range(self.parts) if other != part]
        return [other for other in (part - 1, part + 1) if 0 <= other < self.parts]

    def steps(self, part: int, phase: int, times: int) -> Iterator[Step]:
        """What a part does in a phase, in order. Levels are counted from the first sweep on."""
        if not self.blocked:
            yield from self._plain(part, phase)
            return
        first = phase // 2 * self.sweeps
        levels = range(min(self.sweeps, times - first) * self.links)
        regions = [self._region(part, level, gap=bool(phase % 2)) for level in levels]
        for at in range(*self._extent(part, levels[-1], gap=bool(phase % 2)), self.slab):
            for level, (low, high) in zip(levels, regions, strict=True):
                behind = at - self.slopes[level].right
                start, stop = max(low, behind), min(high, behind + self.slab)
                if start < stop:
                    yield Step(first * self.links + level, start, stop)

    def _plain(self, part: int, phase: int) -> Iterator[Step]:
        start, stop = self.edges[part], self.edges[part + 1]
        if start < stop:
            yield Step(phase, start, stop)

    def _region(self, part: int, level: int, *, gap: bool) -> tuple[int, int]:
        """What of a level falls to a part: its trapezoid, or the gap behind it."""
        left, right = self.slopes[level]
        start, stop = self.edges[part], self.edges[part + 1]
        if gap:
            return (stop - right, stop + left) if part + 1 < self.parts else (stop, stop)
        return start + left * (part > 0), stop - right * (part + 1 < self.parts)

    def _extent(self, part: int, last: int, *, gap: bool) -> tuple[int, int]:
        """Where slabs begin, and where they have passed the region of the last level."""
        start = self.edges[part + 1] if gap else self.edges[part]
        return start, self._region(part, last, gap=gap)[1] + self.slopes[last].right


def schedule(
    length: int,
    parts: int,
    needs: Needs | None,
    links: int,
    *,
    bytes_an_index: int,
    cache: int,
    slab: int | None = None,
    padded: bool = False,
    start: int = 0,
    longest: int = LONGEST,
) -> Schedule:
    """The schedule for an axis of this length, whose first index is `start`.

    Parameters
    ----------
    needs : sequence or None
        See `needs_of`. None: what levels need is not known, so each has a phase of its own.
    bytes_an_index : int
        Of all arrays together.
    cache : int
        Bytes that a core keeps close.
    slab : int, optional
        Indices of a slab, where the caller wants to say.
    padded : bool
        Whether what the ends of the axis see is copied, a slab at least.
    longest : int
        Sweeps of a block of time, at most.
    """
    edges = tuple(start + length * part // parts for part in range(parts + 1))
    few = min(length, max(1 + padded, SLAB_BYTES // bytes_an_index))
    plain = Schedule(edges, links, 1, slab or (few if padded else max(1, length)), ())
    if needs is None or length < 2:
        return plain
    slab = slab or few
    for sweeps in _tried(longest, links):
        found = slopes(needs, sweeps)
        left, right = found[-1]
        fits = (right + slab) * bytes_an_index <= cache or sweeps <= FEWEST
        fits &= sweeps <= FEW or sweeps * length * bytes_an_index <= LARGEST
        if fits and STEEPEST * (left + right) <= length // parts:
            return Schedule(edges, links, sweeps, slab, tuple(found))
    return plain


def _tried(longest: int, links: int) -> Iterator[int]:
    """Sweeps that a block of time may be of. It is worth it for several levels only."""
    sweeps = longest
    while sweeps * links > 1 and sweeps:
        yield sweeps
        sweeps //= 2


SLAB_BYTES = 64 << 10
FEWEST = 4  # sweeps of a block that are worth it whatever the cache is

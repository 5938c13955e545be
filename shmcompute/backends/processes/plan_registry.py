"""`PlanRegistry`: the plans that the workers of a pool may hold, by number."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable

from shmcompute.backends.processes.protocol import pickling
from shmcompute.backends.processes.protocol.messages import PackedPlan
from shmcompute.backends.processes.segment_table import SegmentTable
from shmcompute.chunking import NumberedSegment
from shmcompute.errors import ClosedError
from shmcompute.plans import Form, Plan
from shmcompute.storage import Handle, Segment, mapped

KEPT = 1024  # plans that workers keep,
KEPT_BYTES = 16 << 20  # and how much they may be in all


class PlanRegistry:
    """Numbers of plans, the oldest given up first, and the segments that these refer to.

    Parameters
    ----------
    flush : WeakMethod
        Called at the end of each segment that is watched.

    Attributes
    ----------
    generation : int
        Grows before a plan is given up, since workers may drop it from then on.
    ended : deque of Handle
        Segments that have ended and that workers may have mapped.
    segments : SegmentTable
        Those that frames name.
    """

    def __init__(self, flush: weakref.WeakMethod[Callable[[], None]]) -> None:
        self.generation = 0
        self.ended: deque[Handle] = deque()
        self._flush = flush
        # By use, the oldest first. No OrderedDict: Ctrl-C while it compares two plans leaves it in
        # disorder.
        self._numbers: dict[PackedPlan, int] = {}
        self._packed: weakref.WeakKeyDictionary[Form, PackedPlan] = weakref.WeakKeyDictionary()
        self._last = 0
        self.segments = SegmentTable(self._watch)
        self._watched: set[Handle] = set()

    def packed(self, plan: Plan) -> PackedPlan:
        """The plan as bytes; ClosedError if its arrays were closed since."""
        packed = self._packed.get(plan.form)
        if packed is None:
            packed = self._packed[plan.form] = pickling.pack(plan)
        else:
            _check_open(packed)
        return packed

    def segments_of(self, plan: Plan) -> frozenset[NumberedSegment]:
        """The segments that its arrays are in, numbered; ClosedError if one was closed since."""
        places = plan.places(self.segments.place)
        for segment in places.segments:
            if (found := mapped(segment.handle)) is not None:
                found.check()
        if not self.segments.knows(places.segments):
            places = plan.places(self.segments.place, again=True)
        return places.segments

    def number(self, packed: PackedPlan) -> int:
        """Its number; equal plans have one. The segments that it refers to are watched."""
        number = self._numbers.pop(packed, None)
        if number is None:
            number = self._last = self._last + 1
        self._numbers[packed] = number  # the latest
        while len(self._numbers) > 1 and (
            len(self._numbers) > KEPT or sum(kept.nbytes for kept in self._numbers) > KEPT_BYTES
        ):
            self.generation += 1
            del self._numbers[next(iter(self._numbers))]
        self.watch(packed.handles)
        return number

    def current(self) -> frozenset[int]:
        """The numbers of plans that may be asked for again."""
        return frozenset(self._numbers.values())

    def watch(self, handles: frozenset[Handle]) -> None:
        """Notice the end of these segments, which workers may have mapped."""
        for handle in handles - self._watched:
            segment = mapped(handle)
            if segment is None:
                self.ended.append(handle)
            else:
                self._watch(segment)

    def _watch(self, segment: Segment) -> None:
        ended, flush = self.ended, self._flush  # no reference to self: a pool may be dropped

        def notice(handle: Handle) -> None:
            ended.append(handle)
            if (call := flush()) is not None:
                call()

        if not segment.watch(notice):
            ended.append(segment.handle)
        self._watched.add(segment.handle)

    def give_up_ended(self) -> frozenset[Handle]:
        """The segments that have ended; plans that refer to them are given up."""
        handles = set()
        while self.ended:
            handles.add(self.ended.popleft())
        if handles:
            self.generation += 1
            self._watched -= handles
            self.segments.drop(handles)
            for packed in [packed for packed in self._numbers if packed.handles & handles]:
                del self._numbers[packed]
        return frozenset(handles)


def _check_open(packed: PackedPlan) -> None:
    for handle in packed.handles:
        segment = mapped(handle)
        if segment is None or segment.ended:
            raise ClosedError(f"this plan's array {handle.name!r} was closed; make another plan")

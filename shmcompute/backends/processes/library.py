"""`Library`: the plans that the workers of a pool may hold, by number."""

from __future__ import annotations

import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Collection

from shmcompute.backends.processes.channel import Packed
from shmcompute.backends.processes.packing import pack
from shmcompute.errors import ClosedError
from shmcompute.plan import Plan
from shmcompute.storage import Handle, mapped

KEPT = 64  # plans that workers keep,
KEPT_BYTES = 16 << 20  # and how much they may be in all


class Library:
    """Numbers of plans, the oldest given up first, and the segments that these refer to.

    Parameters
    ----------
    dropped : callable
        Called before a plan is given up, since workers may drop it from then on.
    flush : WeakMethod
        Called at the end of each segment that is watched.
    """

    def __init__(
        self, dropped: Callable[[], None], flush: weakref.WeakMethod[Callable[[], None]]
    ) -> None:
        self._dropped = dropped
        self._flush = flush
        self._numbers: OrderedDict[Packed, int] = OrderedDict()  # by use, oldest first
        self._packed: weakref.WeakKeyDictionary[Plan, Packed] = weakref.WeakKeyDictionary()
        self._last = 0
        self._watched: set[Handle] = set()
        self._ended: deque[Handle] = deque()

    def packed(self, plan: Plan) -> Packed:
        """The plan as bytes; ClosedError if its arrays were closed since."""
        packed = self._packed.get(plan)
        if packed is None:
            packed = self._packed[plan] = pack(plan)
        else:
            _check_open(packed)
        return packed

    def number(self, packed: Packed) -> int:
        """Its number; equal plans have one."""
        if packed not in self._numbers:
            self._last += 1
            self._numbers[packed] = self._last
        self._numbers.move_to_end(packed)
        while len(self._numbers) > 1 and (
            len(self._numbers) > KEPT or sum(kept.nbytes for kept in self._numbers) > KEPT_BYTES
        ):
            self._dropped()
            self._numbers.popitem(last=False)
        return self._numbers[packed]

    def stale(self, held: Collection[int]) -> tuple[int, ...]:
        """Of the numbers of plans that a worker holds, those that nobody will ask for again."""
        return tuple(set(held).difference(self._numbers.values()))

    def watch(self, handles: frozenset[Handle]) -> None:
        """Notice the end of these segments, which workers may have mapped."""
        news = handles - self._watched
        if not news:
            return
        ended, alive = self._ended, self._flush

        def callback(handle: Handle) -> None:
            ended.append(handle)
            if (call := alive()) is not None:
                call()

        for handle in news:
            segment = mapped(handle)
            if segment is None or not segment.watch(callback):
                ended.append(handle)
        self._watched |= news

    def outdated(self) -> bool:
        """Whether segments have ended that workers may have mapped."""
        return bool(self._ended)

    def give_up(self) -> frozenset[Handle]:
        """The segments that have ended; plans that refer to them are given up."""
        handles = set()
        while self._ended:
            handles.add(self._ended.popleft())
        if handles:
            self._dropped()
            self._watched -= handles
            for packed in [packed for packed in self._numbers if packed.handles & handles]:
                del self._numbers[packed]
        return frozenset(handles)


def _check_open(packed: Packed) -> None:
    for handle in packed.handles:
        segment = mapped(handle)
        if segment is None or segment.ended:
            raise ClosedError(f"this plan's array {handle.name!r} was closed; make another plan")

"""`SegmentTable`: the numbers by which frames name segments, and where these are here."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from shmcompute.backends.doorbell import SEGMENTS, no_bases
from shmcompute.chunking import ALL_MEMORY, NumberedSegment, Place
from shmcompute.errors import ShmComputeError
from shmcompute.storage import Handle, Segment, locate
from shmcompute.typing import Array


class SegmentTable:
    """Numbers segments when a frame first needs them, until they end.

    Parameters
    ----------
    watch : callable
        Called with each segment that gets a number: its end is to be noticed.

    Attributes
    ----------
    bases : ndarray of int64
        The address of each segment here, by its number, for a share that this process runs.
    """

    def __init__(self, watch: Callable[[Segment], None]) -> None:
        self.bases = no_bases()
        self._watch = watch
        self._numbered: dict[Segment, NumberedSegment] = {}
        self._free: deque[int] = deque()  # numbers that were another's
        self._last = 0

    def place(self, view: Array) -> Place:
        """Where an array is.

        Raises
        ------
        ClosedError
            If the array it looks into was closed.
        """
        found = locate(view) if view.size else None
        if found is None:  # there is nothing to find
            return ALL_MEMORY, 0
        segment, offset = found
        segment.check()
        return self._numbered.get(segment) or self._number(segment), offset

    def _number(self, segment: Segment) -> NumberedSegment:
        number = self._free.popleft() if self._free else self._new()
        self.bases[number] = segment.address
        self._numbered[segment] = numbered = NumberedSegment(number, segment.handle)
        self._watch(segment)
        return numbered

    def _new(self) -> int:
        if self._last + 1 == SEGMENTS:
            raise ShmComputeError(f"calls of one pool can name {SEGMENTS - 1} arrays at a time")
        self._last += 1
        return self._last

    def knows(self, segments: Iterable[NumberedSegment]) -> bool:
        """Whether these numbers still stand for these segments."""
        return set(self._numbered.values()).issuperset(segments)

    def drop(self, handles: Iterable[Handle]) -> None:
        """These segments have ended: their numbers may be another's."""
        ended = set(handles)
        for segment in [one for one in self._numbered if one.handle in ended]:
            numbered = self._numbered.pop(segment)
            self.bases[numbered.number] = 0
            self._free.append(numbered.number)

"""A segment as this process has it mapped, and the register of all such.

Ownership of memory: *views own the mapping*. A `Segment` holds only a weak reference to the object
that owns the bytes (an ``mmap``, or the ctypes array of a ``multiprocessing.Array``) or that lends
them (where `segment_cache` keeps memory for the next array); the ndarrays over it hold the strong
ones. So a segment is unmapped, or kept, with its last view, in whatever order arrays, views and
the interpreter end, and nothing here can unmap memory under a view's feet.

Ownership of the name: the process that made a segment removes its name, at ``end()`` or, at the
latest, when the mapping goes, or the program ends (see `own_names`). A forked child is another
process: it owns nothing. A worker that returns a segment of its own gives it to the caller.
"""

from __future__ import annotations

import os
import sys
import weakref
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Protocol

from shmcompute.errors import ClosedError
from shmcompute.storage import own_names
from shmcompute.storage.layout import Layout
from shmcompute.system.addresses import address
from shmcompute.system.file_locks import FileLocks
from shmcompute.typing import Array


class Handle(Protocol):
    """What names a segment in another process: small, picklable, hashable."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...

    def map(self) -> tuple[Segment, Array]:
        """Map the segment here, anew; an attacher's mapping."""
        ...

    def locks(self, layout: Layout) -> FileLocks:
        """Where locks of the segment stand, opened anew."""
        ...

    def adopt(self, segment: Segment, array: Array) -> None:
        """Own the segment that was mapped so: its maker has given it to this process."""
        ...


class Segment:
    """One block of memory that several processes can map, mapped here.

    Parameters
    ----------
    handle, layout
        What names it elsewhere; what it holds.
    base : object
        What owns or lends the bytes. Only a weak reference is kept.
    memory : ndarray of uint8
        All bytes of data, over `base`.
    remove : callable, optional
        Takes the name away; given by the process that made the segment.
    lasting : bool
        Whether the name outlives this process unless `unlink` is called.
    used : bool
        Whether the bytes may be another array's old ones; else they are zero, or the file's.
    """

    def __init__(
        self,
        handle: Handle,
        layout: Layout,
        base: object,
        memory: Array,
        remove: Callable[[], None] | None = None,
        *,
        lasting: bool = False,
        used: bool = False,
        finally_: Callable[[], None] | None = None,
    ) -> None:
        self.handle = handle
        self.layout = layout
        self.address: int = memory.__array_interface__["data"][0]
        self.extent = max(1, memory.nbytes)
        self.ended = False  # True once the name is gone or about to go: no one new may attach
        self._memory = weakref.ref(memory)
        self._remove = remove
        self._lasting = lasting
        self._used = used
        self._maker = os.getpid() if remove is not None else None
        self.holder: weakref.ref[Any] | None = None  # the latest array object over it
        self._watchers: list[Callable[[Handle], None]] = []
        self._finally = finally_
        _handles[handle] = self  # first: see `is_made`
        _register[self.address] = self
        # No `weakref.finalize`, which does nothing any more once the program has begun to end.
        self._base = weakref.ref(base, self._unmapped)
        _segments.add(self)

    @property
    def owner(self) -> bool:
        """Whether this process made the segment and so is the one to unlink it."""
        return self._maker == os.getpid()

    @property
    def lasting(self) -> bool:
        """Whether the name stays when this process goes."""
        return self._lasting

    def give(self) -> None:
        """Leave the name to another process, which is about to adopt the segment."""
        self._remove = self._maker = None
        own_names.forget(self.handle.name)

    def own(self, remove: Callable[[], None]) -> None:
        """Be the one who takes the name away, with `remove`."""
        self._remove, self._maker = remove, os.getpid()

    def array(self) -> Array | None:
        """A fresh array over the whole segment, or None if its last view is gone."""
        memory = self._memory()
        return None if memory is None else self.layout.over(memory)

    def clear(self) -> None:
        """Make a new segment read as zero, if it does not."""
        memory = self._memory() if self._used else None
        if memory is not None:
            memory.fill(0)

    def watch(self, callback: Callable[[Handle], None]) -> bool:
        """Have `callback(handle)` called once, when nobody here will use the segment again.

        Returns
        -------
        bool
            False if that moment has passed.
        """
        if not self.ended:
            self._watchers.append(callback)
        return not self.ended

    def check(self) -> None:
        """Raise ClosedError if the owner has ended the segment."""
        if self.ended:
            raise ClosedError(
                f"{self.handle.name!r} was closed or unlinked by its owner: views of it stay "
                "valid, but it is neither attached to nor locked any more; do that before close()"
            )

    def locks(self) -> FileLocks:
        """Where its locks stand, opened anew; to be had as long as others may attach."""
        self.check()
        return self.handle.locks(self.layout)

    def end(self) -> None:
        """The owner has finished: take the name away, unless it is to last."""
        if self.owner and not self._lasting:
            self.unlink()

    def unlink(self) -> None:
        """Take the name away, once. Mappings stay valid until their views are gone."""
        self.ended = True
        remove, self._remove = self._remove, None
        if remove is not None and self.owner:
            remove()  # before the watchers, who may be interrupted while they wait for workers
        self._retire()

    def _retire(self) -> None:
        self.ended = True
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            watcher(self.handle)

    def _unmapped(self, _: object, gone: Callable[[], bool] = sys.is_finalizing) -> None:
        # Runs inside garbage collection, in any thread: watchers must not wait for a lock.
        if gone():  # what this would call, perhaps, too; libc removes the names that are left
            return
        _segments.discard(self)
        if _register.get(self.address) is self:
            del _register[self.address]
        if _handles.get(self.handle) is self:
            del _handles[self.handle]
        try:
            self.end()
            self._retire()
        finally:
            if self._finally is not None:
                self._finally()


_segments: set[Segment] = set()  # keeps each alive exactly as long as its mapping
_register: dict[int, Segment] = {}  # by address
_handles: dict[Handle, Segment] = {}


def live() -> list[Segment]:
    """Every segment mapped in this process."""
    return list(_register.values())


def mapped(handle: Handle) -> Segment | None:
    """The segment of that handle, if this process has it mapped already."""
    return _handles.get(handle)


def is_made(handle: Handle) -> bool:
    """Whether its segment is whole, and ends with its last view; one half made is forgotten.

    To be asked by who was interrupted while he made it.
    """
    segment = _handles.get(handle)
    if segment is None or segment in _segments:
        return segment is not None
    _register.pop(segment.address, None)
    _handles.pop(handle, None)
    return False


def locate(view: Array) -> tuple[Segment, int] | None:
    """The segment that `view` looks into, and the offset of its first element.

    By address, since a view's ``.base`` may be any object along the way.
    """
    start = address(view)
    starts = sorted(_register)  # one C call: safe against other threads
    at = bisect_right(starts, start) - 1
    segment = _register.get(starts[at]) if at >= 0 else None
    if segment is None or start > segment.address + segment.extent:
        return None
    # A zero-size view may stand one past the end; any other has its first byte inside.
    if start == segment.address + segment.extent and view.size:
        return None
    return segment, start - segment.address

"""Memory of closed arrays, kept for the next ones.

The kernel clears each new page and maps it with a fault of its own; a block that was in use costs
neither. So the maker of a segment keeps the memory of a closed one, mapping and all, for the next
array of the same size.

A block goes round like this, and one whose round is broken anywhere is given back:

1. *Lent*: under the name of an array. Its ndarrays hold the mapping.
2. *Hidden*: the array was closed. The name is gone, which at once keeps new attachers away. An
   inode that lost its last name can't have another, so it is renamed, not removed. It stays locked
   like any segment (see `liveness`), so a reaper removes it only when we have died.
3. *Cached*: the last ndarray is gone, too.
4. *Lent* again, once nobody else could reach the old bytes: no ndarray here (whoever looks into the
   mapping holds a reference to it), no forked child, no other process (see `exclusive`).
   That is decided at the time of lending; a block that is still in use is passed over. Where a
   child was seen, the mapping is made anew, and it is the kernel's count that decides.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import secrets
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

from shmcompute.config import size as configured
from shmcompute.storage import exclusive, liveness, own_names
from shmcompute.storage.exclusive import is_exclusive, reopen
from shmcompute.storage.mapping import Mapping, map_file
from shmcompute.storage.names import HIDDEN
from shmcompute.system import memory
from shmcompute.system.interrupts import call_with_lock

LEAST = 1 << 20  # bytes: below, asking costs what it saves
MOST = 1 << 30  # bytes kept where the environment names no number


class CachedBlock:
    """The memory behind a segment, which may be another segment's later.

    Parameters
    ----------
    fd : int
        Its descriptor, locked. It is the block's from now on, and none of its duplicates may stay
        with anybody else.
    path : Path
        Its name for now.
    length : int
        How much of it is mapped: the data, without the trailer.
    """

    def __init__(self, fd: int, path: Path, length: int) -> None:
        self.fd, self.length = fd, length
        self.path: Path | None = path  # None once somebody else has removed it
        status = os.fstat(fd)
        self.serial, self.size = status.st_ino, status.st_size
        # A name and an inode make a handle; a block never bears the same name twice, lest a stale
        # handle of one array should find another.
        self.names_used = {path.name}
        self.base: Mapping | None = None
        self._maker = os.getpid()
        self._map(mmap.MAP_SHARED)

    def _map(self, flags: int) -> None:
        self._detector = exclusive.fork_detector()  # before the mapping: it covers what comes after
        self.base = map_file(self.fd, self.length, flags=flags, keeps_fd=False)

    @property
    def memory(self) -> Mapping:
        """The mapping of a block that is about to be lent."""
        assert self.base is not None  # noqa: S101  # for mypy
        return self.base

    @property
    def ours(self) -> bool:
        """Whether this process is the maker, no child of it."""
        return self._maker == os.getpid()

    def hide(self) -> None:
        """Take the name away, if it is still this block's."""
        path, self.path = self.path, None
        with suppress(OSError):  # somebody was faster: a gc, a standard library's tracker
            if path is not None and path.lstat().st_ino == self.serial:
                self.path = self._hidden(path)
        if path is not None:
            own_names.forget(path.name)

    def _hidden(self, path: Path) -> Path | None:
        """The new name of a block; None if it has none any more, so it goes with its last view."""
        if own_names.ending():
            path.unlink()
            return None
        hidden = path.with_name(HIDDEN + secrets.token_hex(6))
        with own_names.given(hidden.name, partial(hidden.unlink, missing_ok=True)):
            try:
                path.rename(hidden)
                return hidden
            except OSError:
                path.unlink()
        own_names.forget(hidden.name)
        return None

    def show(self, name: str) -> None:
        """Give it the name of an array; FileExistsError if that is taken."""
        assert self.path is not None  # noqa: S101  # for mypy: what has no name is not lent
        path = self.path.with_name(name)
        with own_names.given(name, partial(path.unlink, missing_ok=True)):
            os.link(self.path, path)
        self.names_used.add(name)
        hidden, self.path = self.path, path
        with suppress(OSError):  # it stays ours until then; after that it is an orphan
            hidden.unlink()
        own_names.forget(hidden.name)

    def ready(self) -> bool:
        """Whether nobody at all can reach the bytes any more. It is mapped then."""
        if self.base is not None:
            if sys.getrefcount(self.base) > 2:  # that of the block, and of the call
                return False
            if exclusive.no_child_since(self._detector):
                return is_exclusive(self.fd)
            self._unmap()
        if not is_exclusive(self.fd):
            return False
        self._map(mmap.MAP_SHARED | mmap.MAP_POPULATE)
        return True

    def _unmap(self) -> None:
        """Leave the description that children share for one that none does."""
        fd = reopen(self.fd)
        try:
            liveness.hold(fd, "")
        except BaseException:
            os.close(fd)
            raise
        old, self.fd, self.base = self.fd, fd, None
        os.close(old)

    def drop(self) -> None:
        """Give it back: at once, or when the last view is gone."""
        path, self.path, self.base = self.path, None, None
        with suppress(OSError):
            if path is not None and self.ours:
                path.unlink()
                own_names.forget(path.name)
        os.close(self.fd)


_blocks: dict[int, CachedBlock] = {}  # those that can be lent, by inode, the oldest first
_take_lock = threading.Lock()


def cacheable(size: int) -> bool:
    """Whether a new segment of that size should be a block."""
    # A child of multiprocessing, a worker of ours among them, runs no exit handlers, and a Pool
    # ends its own with a signal: what they kept would stay behind.
    main = multiprocessing.parent_process() is None
    return exclusive.SUPPORTED and main and size >= LEAST and configured("WARM_BYTES") != 0


def limit(folder: Path) -> int:
    """How many bytes may be kept: the setting, else a quarter of what is free, at most `MOST`."""
    configured_limit = configured("WARM_BYTES")
    return (
        min(MOST, (cached_bytes() + memory.free_in(folder)) // 4)
        if configured_limit is None
        else configured_limit
    )


def cached_bytes() -> int:
    """How many bytes are kept."""
    return sum(block.size for block in list(_blocks.values()))


def keep(block: CachedBlock) -> None:
    """Take over a block whose last view is gone; it is given back if it can't be kept.

    Runs inside garbage collection, in any thread: it waits for nothing.
    """
    try:
        allowed = (
            limit(block.path.parent)
            if block.ours and block.path is not None and not own_names.ending()
            else 0
        )
        if block.size <= allowed:
            is_exclusive(block.fd)  # an OSError here: it could never be lent again
            _blocks[block.serial] = block
            _trim(allowed)
            return
    except (OSError, ValueError):
        pass
    block.drop()


def _trim(allowed: int) -> None:
    for serial in list(_blocks):
        if cached_bytes() <= allowed:
            return
        oldest = _blocks.pop(serial, None)
        if oldest is not None:
            oldest.drop()


def take(length: int, size: int, name: str | None) -> CachedBlock | None:
    """A block of exactly that size that nobody uses, mapped; it is the caller's then."""
    if not _blocks or own_names.ending():
        return None
    # Without the lock: it is taken in another thread, or below us, where garbage collection runs
    # somebody's __del__.
    return call_with_lock(
        _take_lock, 0, lambda locked: _find(length, size, name) if locked else None
    )


def _find(length: int, size: int, name: str | None) -> CachedBlock | None:
    for block in reversed(list(_blocks.values())):
        fits = (block.length, block.size) == (length, size) and name not in block.names_used
        popped = fits and _blocks.pop(block.serial, None) is not None
        if popped and _lendable(block):
            return block
    return None


def _lendable(block: CachedBlock) -> bool:
    """Whether a block can be lent; if not it waits on, or goes."""
    try:
        if block.ready():
            return True
        _blocks[block.serial] = block
    except (OSError, ValueError):
        block.drop()
    return False


def release() -> int:
    """Give back all that is kept; how many bytes it was."""
    freed = 0
    for serial in list(_blocks):
        block = _blocks.pop(serial, None)
        if block is not None:
            freed += block.size
            block.drop()
    return freed


def _after_fork() -> None:
    global _take_lock
    _take_lock = threading.Lock()
    exclusive.after_fork_in_child()
    release()  # as a child: names stay


os.register_at_fork(after_in_child=_after_fork)

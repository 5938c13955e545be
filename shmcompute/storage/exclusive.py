"""Whether no other process can reach a file's bytes, so that its memory may be used again.

Two questions, since no single answer of the kernel covers both:

*Has another process opened or mapped it?* Linux grants a write lease on a file only while no open
file description of it exists but the asker's own. A mapping holds its description, even if the
descriptor was closed since. So a lease tells of processes that opened the name with nothing but the
standard library, that hold a descriptor and may map it later, or whose descriptor is still under
way in a socket.

*Has a forked child inherited our mapping?* A child shares our very descriptions, so a lease does
not tell it from us. A `ForkDetector` is a page that was mapped before the mapping in question. A
child that inherited the one has the other, however it was forked and whatever it closed since. The
page can be mapped anew through a fresh description at any time; then every old description is
another one, and a lease tells of it.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import sys

SUPPORTED: bool = sys.platform == "linux"


def is_exclusive(fd: int) -> bool:
    """Whether the description behind `fd`, open for writing, is the file's only one.

    Raises
    ------
    OSError
        If the kernel does not tell: leases are switched off, or the sandbox has none.
    """
    # Who opens the file during the lease has us sent a signal, by default one that kills.
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except BlockingIOError:
        return False
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def reopen(fd: int) -> int:
    """A descriptor of the same file with a description of its own, which nobody shares."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)


class ForkDetector:
    """A page that all children forked from now on have mapped.

    It covers mappings made later than itself. Once it has seen a child it is of no more use, for it
    can't tell when that child ends: make another.
    """

    def __init__(self) -> None:
        memfd = os.memfd_create("shmcompute-fork-detector", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memfd, mmap.PAGESIZE)
            self._fd = reopen(memfd)  # the kernel does not count a memfd's first description
        finally:
            os.close(memfd)
        self._page = _map_page(self._fd)

    def no_child(self) -> bool:
        """Whether no process forked since lives on with our memory.

        A child forked while this looks is not counted this time, but from the next time on.
        """
        fd = reopen(self._fd)
        page = _map_page(fd)
        old_page, old_fd, self._fd, self._page = self._page, self._fd, fd, page
        _unmap_page(old_page, old_fd)  # only now: at every moment one of the two is mapped
        return is_exclusive(fd)

    def close(self) -> None:
        """Unmap the page."""
        _unmap_page(self._page, self._fd)


def _map_page(fd: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, mmap.PAGESIZE)
    except OSError:
        os.close(fd)
        raise


def _unmap_page(page: mmap.mmap, fd: int) -> None:
    page.close()
    os.close(fd)


_current: dict[str, ForkDetector] = {}  # one at most; a dict's methods are atomic
_parent_detectors: list[ForkDetector] = []  # in a child: its parent's


def fork_detector() -> ForkDetector:
    """The detector that covers what is mapped from now on."""
    detector = _current.get("detector")
    if detector is None:
        new = ForkDetector()
        detector = _current.setdefault("detector", new)
        if detector is not new:  # another thread was faster
            new.close()
    return detector


def no_child_since(detector: ForkDetector) -> bool:
    """Whether no child has the mappings made since `detector` was current; False if unknown.

    Not for two threads at a time.
    """
    if detector is not _current.get("detector"):
        return False
    if detector.no_child():
        return True
    _current.clear()
    detector.close()
    return False


def after_fork_in_child() -> None:
    """Keep the parent's page: as long as it is mapped, the parent sees that this child lives."""
    _parent_detectors.extend(_current.values())
    _current.clear()

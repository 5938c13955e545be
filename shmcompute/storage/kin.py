"""Whether a process lives that was forked from this one and so shares its mappings.

A child shares the very descriptions of its parent, where `sole` can't tell the two apart. So a
page is mapped before any mapping that is in question. Whoever is forked while it is mapped has it
too, however the fork was made and whatever descriptors the child has closed since; and a page, in
contrast to a segment, can be mapped anew through a fresh description at any time, beside which
every old one is seen.
"""

from __future__ import annotations

import mmap
import os

from shmcompute.storage.sole import reopened, sole


class Kin:
    """A page that all who are forked from now on have mapped.

    It holds for mappings made later than itself. Once a child was seen it is of no more use, for
    it can't tell when that child ends: make another.
    """

    def __init__(self) -> None:
        made = os.memfd_create("shmcompute-kin", os.MFD_CLOEXEC)
        try:
            os.ftruncate(made, mmap.PAGESIZE)
            self._fd = reopened(made)  # the kernel does not count a memfd's first description
        finally:
            os.close(made)
        self._page = _mapped(self._fd)

    def none(self) -> bool:
        """Whether no process forked since lives on with our memory.

        A child forked while we look is not counted this time, but from the next time on.
        """
        fresh = reopened(self._fd)
        page = _mapped(fresh)
        old, self._fd, self._page = (self._page, self._fd), fresh, page
        _close(*old)  # only now: at every moment one of the two is mapped
        return sole(fresh)

    def close(self) -> None:
        """Let go of the page."""
        _close(self._page, self._fd)


def _mapped(fd: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, mmap.PAGESIZE)
    except OSError:
        os.close(fd)
        raise


def _close(page: mmap.mmap, fd: int) -> None:
    page.close()
    os.close(fd)


_now: dict[str, Kin] = {}  # one at most; its methods are atomic
_foreign: list[Kin] = []


def current() -> Kin:
    """The page that covers what is mapped from now on."""
    kin = _now.get("kin")
    if kin is None:
        made = Kin()
        kin = _now.setdefault("kin", made)
        if kin is not made:  # another thread was faster
            made.close()
    return kin


def covered(kin: Kin) -> bool:
    """Whether no child has the mappings made since `kin` was `current`; False if unknown.

    Not for two threads at a time.
    """
    if kin is not _now.get("kin"):
        return False
    if kin.none():
        return True
    _now.clear()
    kin.close()
    return False


def forked() -> None:
    """In a child: keep the parent's page, as long as anything of the parent's may be mapped."""
    _foreign.extend(_now.values())
    _now.clear()

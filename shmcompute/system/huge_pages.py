"""Huge pages for files in memory: who decides on them, and how a new file gets them.

A huge page is mapped by one fault and found by one entry of the processor's translation cache,
where small ones take 512 of each. Private memory is given them where `madvise` asks, as NumPy does.
For files in memory the mount decides, by its option ``huge=``, and for a memfd ``shmem_enabled``:

=============== ==================================================================================
``always``      all that is reserved is huge, the end of a file, too: it takes more than its size
``within_size`` `posix_fallocate` takes huge pages where they end before the file does
``advise``      only a fault in a mapping that was advised takes them: MADV_POPULATE_WRITE (5.14)
``never``       the default. None, but for MADV_COLLAPSE (6.1), which asks no setting but ``deny``
``deny``        only of ``shmem_enabled``: none for anybody
=============== ==================================================================================

https://docs.kernel.org/admin-guide/mm/transhuge.html
"""

from __future__ import annotations

import functools
import os
import re
import sys
import tempfile
from functools import partial
from pathlib import Path

from shmcompute import config
from shmcompute.system.mappings import advise, aligned, is_tmpfs

ROOT = Path("/")
_SYSFS = "sys/kernel/mm/transparent_hugepage"
MADV_HUGEPAGE = 14
_POPULATE = (MADV_HUGEPAGE, 23)  # the latter is MADV_POPULATE_WRITE
_MADV_COLLAPSE = 25
STEP = 256 << 20  # bytes that the kernel is asked for at once: signals are heard in between


@functools.cache
def size(root: Path = ROOT) -> int | None:
    """Bytes of a huge page; None where the kernel has none."""
    try:
        found = int((root / _SYSFS / "hpage_pmd_size").read_text())
    except (OSError, ValueError):
        return None
    return found if sys.platform == "linux" and sys.maxsize > 1 << 32 else None


def switched_off() -> bool:
    """Whether ``SHMCOMPUTE_HUGE_PAGES`` says so."""
    return not config.switched_on("HUGE_PAGES", default="1")


def wanted(nbytes: int) -> bool:
    """Whether that much memory has room for huge pages and should have them."""
    huge = size()
    return huge is not None and nbytes >= huge and not switched_off()


def fill(fd: int, nbytes: int) -> int:
    """Have a new file of that size hold huge pages, where `posix_fallocate` would take small ones.

    What it holds already is kept.

    Returns
    -------
    int
        Up to where it is filled: what is left is to be had in small pages, or has no room at all.
    """
    huge, status = size(), os.fstat(fd)
    # A tmpfs tells so that what it reserves is huge.
    if huge is None or not wanted(nbytes) or status.st_blksize >= huge or not is_tmpfs(fd):
        return 0
    take = _populate if policy(status.st_dev) == "advise" else _collapse
    whole, end = nbytes - nbytes % huge, 0
    while end < whole:
        length = min(max(STEP, huge), whole - end)
        if not take(fd, end, length, huge):
            break
        end += length
    return end


def given(folder: Path) -> bool:
    """Whether a new file there gets a huge page, at this very moment."""
    huge = size()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(huge)
            return huge is not None and fill(file.fileno(), huge) == huge
    except OSError:
        return False


def _populate(fd: int, start: int, length: int, huge: int) -> bool:
    memory = aligned(fd, length, huge, start)
    return memory is not None and all(map(partial(advise, memory), _POPULATE))


def _collapse(fd: int, start: int, length: int, huge: int) -> bool:
    for offset in range(start, start + length, huge):
        os.posix_fallocate(fd, offset, 1)  # a page: where there is none, none is made huge
    memory = aligned(fd, length, huge, start)
    return memory is not None and advise(memory, _MADV_COLLAPSE)


@functools.cache
def policy(device: int, root: Path = ROOT) -> str:
    """The ``huge=`` of the tmpfs with that number, or ``shmem_enabled``, if it is mounted nowhere.

    Read once: where it has changed since, memory is reserved as before, and later.
    """
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mount, _, source = line.partition(" - ")
        if mount.split()[2:3] == [number]:
            found = re.search(r"\bhuge=(\w+)", source)
            return found[1] if found else "never"
    return kernel_policy(root)


def kernel_policy(root: Path = ROOT) -> str:
    """The word of ``shmem_enabled`` that is chosen; "never" where the kernel does not tell."""
    found = re.search(r"\[(\w+)\]", _read(root / _SYSFS / "shmem_enabled"))
    return found[1] if found else "never"


def process_may(root: Path = ROOT) -> bool:
    """Whether this process was not denied huge pages, by ``prctl(PR_SET_THP_DISABLE)``."""
    return re.search(r"^THP_enabled:\s+0$", _read(root / "proc/self/status"), re.M) is None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""

"""Whether nobody else has a file: asked of the kernel, which counts its users.

Linux grants a write lease on a file only while no open description of it exists but the asker's
own. A mapping holds its description, whether or not its descriptor was closed since, so this sees
whoever could still reach the bytes: processes that opened the name with nothing but the standard
library, that hold a descriptor and map it later, or whose descriptor is still under way in a
socket. It does not see what *shares* the asker's description, as a forked child does: see `Kin`.
"""

from __future__ import annotations

import os
import signal
import sys

if sys.platform == "linux":
    import fcntl

KNOWN: bool = sys.platform == "linux" and hasattr(os, "memfd_create")


def sole(fd: int) -> bool:
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


def reopened(fd: int) -> int:
    """A descriptor of the same file with a description of its own, which nobody shares."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)

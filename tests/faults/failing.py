"""Fail the n-th call of a function through which the product asks something of the system.

As SQLite's tests do: a scenario is run with the first call failed, then the second, and so on,
until it ends before the fault is due. What is patched are names of the standard library, so the
product needs no hooks.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import multiprocessing.context
import os
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

try:
    import _posixshmem
except ImportError:
    _posixshmem = None

# InterruptedError is what a handler of the user's own may raise out of a call: Python restarts a
# call that a signal merely interrupted, so it need not be a success here, but typed and clean.
ERRNOS = (errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EINTR)

MOST = 200  # calls of one function in a scenario

STORAGE = [
    *((os, name) for name in ("open", "ftruncate", "posix_fallocate", "link", "rename", "unlink")),
    *((os, name) for name in ("fstat", "lstat", "pread", "pwrite", "dup", "memfd_create")),
    *((os, name) for name in ("scandir", "statvfs")),
    (mmap, "mmap"),
    (fcntl, "flock"),
    (fcntl, "fcntl"),
    *((_posixshmem, name) for name in ("shm_open", "shm_unlink")),
]
POOL = [
    (os, "memfd_create"),
    (os, "ftruncate"),
    (mmap, "mmap"),
    (os, "pidfd_open"),
    (os, "pipe"),
    (os, "fork"),
    (socket, "socketpair"),
    (threading.Thread, "start"),
    (multiprocessing.context.ForkProcess, "start"),
]


@dataclass
class Fault:
    """One call that fails, or that one and all later ones."""

    home: Any
    name: str
    number: int  # of the call, from 1
    code: int
    lasting: bool
    calls: int = 0
    pid: int = field(default_factory=os.getpid)  # a forked worker inherits what is patched

    @property
    def fired(self) -> bool:
        return self.calls >= self.number

    def __call__(self, *args: Any, real: Callable[..., Any], **keywords: Any) -> Any:
        if os.getpid() != self.pid:
            return real(*args, **keywords)
        self.calls += 1
        if self.calls == self.number or (self.lasting and self.fired):
            if (self.home, self.name) == (threading.Thread, "start"):
                raise RuntimeError("can't start new thread")
            raise OSError(self.code, f"injected into {self}")
        return real(*args, **keywords)

    def __str__(self) -> str:
        where = getattr(self.home, "__name__", self.home)
        how = "from then on" if self.lasting else "once"
        return f"call {self.number} of {where}.{self.name}, {errno.errorcode[self.code]}, {how}"

    def patch(self, monkeypatch: Any) -> None:
        real = getattr(self.home, self.name)
        if isinstance(self.home, type):  # a method

            def method(*args: Any, **keywords: Any) -> Any:
                return self(*args, real=real, **keywords)

            monkeypatch.setattr(self.home, self.name, method)
        else:
            monkeypatch.setattr(self.home, self.name, partial(self, real=real))


def sweep(
    function: tuple[Any, str], trial: Callable[[Fault], None], codes: Sequence[int] = ERRNOS
) -> int:
    """Try a scenario with each of its calls of a function failed in turn; how many faults fired."""
    count = 0
    for code, lasting in product(codes, (False, True)):
        for number in range(1, MOST):
            fault = Fault(*function, number, code, lasting)
            trial(fault)
            if not fault.fired:
                break
            count += 1
        else:
            raise AssertionError(f"it grows with each trial: {fault}")
    return count


def descriptors() -> set[tuple[int, str]]:
    """Open descriptors and what they lead to, without memory that multiprocessing keeps."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            if "/pym-" not in target:
                found.add((int(entry), target))
    return found

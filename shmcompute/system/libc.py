"""The C library's calls for which Python has no function."""

from __future__ import annotations

import ctypes
import errno
import functools
import os


@functools.cache
def libc() -> ctypes.CDLL:
    """The C library; a call lets go of the GIL."""
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_long,
    )
    library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    library.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
    return library


_HERE = -100  # AT_FDCWD: paths are those of the working directory
_EXCHANGE = 2  # RENAME_EXCHANGE


def exchange(one: os.PathLike[str], other: os.PathLike[str]) -> None:
    """Let two files or folders change names, in one step where the file system can.

    Raises
    ------
    OSError
    """
    rename = getattr(libc(), "renameat2", None)
    if rename is not None:
        first, second = os.fsencode(one), os.fsencode(other)
        if rename(_HERE, first, _HERE, second, _EXCHANGE) == 0:
            return
        if (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(number, os.strerror(number), os.fspath(one), None, os.fspath(other))
    # Between these two steps `other` is not there, and its readers fail.
    aside = f"{os.fspath(one)}-aside"
    os.rename(other, aside)
    os.rename(one, other)
    os.rename(aside, one)

"""Limits that a process was given (``ulimit``), and which of them an error may mean."""

from __future__ import annotations

import errno
import resource

# By error: the limit that brings it about, and what it is called.
_CAUSES = {
    errno.EFBIG: ("RLIMIT_FSIZE", "the size of files", "-f"),
    errno.EMFILE: ("RLIMIT_NOFILE", "open descriptors", "-n"),
    errno.ENOMEM: ("RLIMIT_AS", "address space", "-v"),
    errno.EAGAIN: ("RLIMIT_NPROC", "processes and threads", "-u"),
}


def known() -> list[tuple[str, str, str]]:
    """Limits of this platform that calls run into: name, of what, and the shell's option."""
    return [cause for cause in _CAUSES.values() if hasattr(resource, cause[0])]


def explain(error: OSError) -> str | None:
    """The limit that an error may mean, in words; None if there is no such limit."""
    name, what, option = _CAUSES.get(error.errno or 0, ("", "", ""))
    number = getattr(resource, name, None)
    granted = resource.RLIM_INFINITY if number is None else resource.getrlimit(number)[0]
    if granted == resource.RLIM_INFINITY:
        return None
    return f"the limit on {what} (ulimit {option}, {name}) is {granted}; raise it"


def described(error: OSError) -> str:
    """An error, with the limit that it may mean."""
    limit = explain(error)
    return f"{error}" if limit is None else f"{error}: {limit}"

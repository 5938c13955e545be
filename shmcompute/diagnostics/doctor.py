"""`examine`: is this host well? Each thing on which calls depend is looked at, or tried.

Nothing here reads the host itself: it asks those who read it for the calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from shmcompute.diagnostics import host, shared_memory, speed
from shmcompute.diagnostics.finding import BROKEN, Finding

Check = Callable[[], Iterable[Finding]]

CHECKS: tuple[Check, ...] = (
    host.python,
    host.packages,
    host.settings,
    host.processors,
    host.memory_left,
    host.ulimits,
    host.waiting,
    host.code_on_disk,
    host.threading_layers,
    host.start_method,
    shared_memory.folder,
    shared_memory.segment,
    shared_memory.leases,
    shared_memory.memfd,
    shared_memory.huge_pages,
    shared_memory.leftovers,
    speed.first_touch,
    speed.threads,
    speed.processes,
)


def examine(checks: Iterable[Check] = CHECKS) -> Iterator[Finding]:
    """What each check finds, one after the other.

    Examples
    --------
    >>> from shmcompute.diagnostics import Finding
    >>> [finding.state for finding in examine([lambda: [Finding("eyes", "two")]])]
    ['ok']
    """
    for check in checks:
        yield from _tried(check)


def _tried(check: Check) -> Iterator[Finding]:
    """What a check finds. That it fails is a finding, too: the others are to be heard."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001
        told = f"could not be looked at: {type(error).__name__}: {error}"
        yield Finding(check.__name__.replace("_", " "), told, BROKEN, "mend what it says")

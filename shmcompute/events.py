"""What happens in this process, said once to all who listen: the log, a trace.

Whoever does something that a user may want to know of says so by `tell`: an event's name, and facts
by name. It knows no listener, and a listener needs no place in its code. Workers have events of
their own, which stay with them: what the caller does for them is told in the caller.

Told is what costs far more than to tell it: starts and ends of workers, deaths, plans sent. The
repeated call of a plan tells nothing.

=================  ============================================================================
event              facts
=================  ============================================================================
worker_started     pid, number, method: a process was started, and gets ready
worker_ready       pid, number: it takes work
worker_retired     pid, number, tasks: it has done as many as it was to do
worker_lost        pid, number, how, raised: it died; whether an error tells the caller
worker_killed      pid, number: it owed an answer that nobody waits for any longer
worker_ended       pid, number, how: it was told to
worker_refused     pid, number, error: its initializer failed
plan_sent          plan, workers, nbytes
chunks_retried     plan, chunks, attempt, retries, error: what workers left is run again
kernel_as_source   kernel, why: its machine code does not travel, so workers compile it
storage_fallback   storage, error: other memory than shm
method_fallback    asked, used: another start method
wait_fallback      : there is no futex, so those who wait poll
segment_reaped     name, size: it was left behind by processes that died
=================  ============================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

Listener = Callable[[str, dict[str, Any]], object]

# Replaced, never changed: whoever tells an event goes through what was there when it began.
_listeners: tuple[Listener, ...] = ()


def listen(listener: Listener) -> Callable[[], None]:
    """Have ``listener(event, facts)`` called for each event from now on; what ends that.

    It is called in the thread that tells, which may hold locks of a pool: it must not wait for one.
    What it raises is dropped: an event that is not heard must not break what it tells of.

    Examples
    --------
    >>> from shmcompute import events
    >>> heard = []
    >>> stop = events.listen(lambda event, facts: heard.append((event, facts)))
    >>> events.tell("segment_reaped", name="a", size=8)
    >>> stop()
    >>> heard
    [('segment_reaped', {'name': 'a', 'size': 8})]
    """
    global _listeners
    _listeners = (*_listeners, listener)

    def stop() -> None:
        global _listeners
        _listeners = tuple(one for one in _listeners if one is not listener)

    return stop


def tell(event: str, /, **facts: Any) -> None:
    """Say to all who listen that this has happened."""
    for listener in _listeners:
        with suppress(Exception):
            listener(event, facts)

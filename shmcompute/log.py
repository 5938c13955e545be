"""The logger ``shmcompute``: `events` as lines of a log.

A warning is what nothing else would tell: a worker's death that no call raises, since it had no
work or its chunks were run again. What raises an error, or is warned of by `warnings`, is worth
knowing besides (INFO), and so is what works, but slower than it might. All that goes well is DEBUG.
"""

from __future__ import annotations

import logging  # which Numba has imported
from logging import DEBUG, INFO, WARNING
from typing import Any

from shmcompute import events

LOGGER = logging.getLogger("shmcompute")

_LINES = {
    "worker_started": (DEBUG, "worker %(number)d started: process %(pid)d, by %(method)s"),
    "worker_ready": (DEBUG, "worker %(number)d is ready: process %(pid)d"),
    "worker_retired": (
        DEBUG,
        "worker %(number)d is replaced, for it has done %(tasks)d tasks: process %(pid)d",
    ),
    "worker_lost": (INFO, "worker %(number)d was lost (%(how)s): process %(pid)d"),
    "worker_killed": (
        INFO,
        "worker %(number)d was killed, since nobody waits for its answer: process %(pid)d",
    ),
    "worker_ended": (DEBUG, "worker %(number)d ended (%(how)s): process %(pid)d"),
    "worker_refused": (
        INFO,
        "worker %(number)d could not be initialized (%(error)s): process %(pid)d",
    ),
    "plan_sent": (DEBUG, "plan of %(plan)s sent to %(workers)d workers: %(nbytes)d bytes"),
    "chunks_retried": (
        WARNING,
        "%(chunks)d chunks of %(plan)s are run again, retry %(attempt)d of %(retries)d: %(error)s",
    ),
    "kernel_as_source": (
        INFO,
        "kernel %(kernel)s goes to workers as source, and each compiles it: %(why)s",
    ),
    "storage_fallback": (INFO, "storage=%(storage)r in place of 'shm': %(error)s"),
    "method_fallback": (
        INFO,
        "start_method=%(used)r in place of %(asked)r, which is not to be had in this process",
    ),
    "wait_fallback": (INFO, "no futex here: workers and callers poll while they wait"),
    "segment_reaped": (
        INFO,
        "segment %(name)r (%(size)d bytes) removed: its processes have died",
    ),
}


def _record(event: str, facts: dict[str, Any]) -> None:
    level, line = _LINES.get(event) or (DEBUG, " ".join([event, *(f"{n}=%({n})s" for n in facts)]))
    if event == "worker_lost" and not facts["raised"]:
        level = WARNING
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, line, *filter(None, [facts]), extra={"event": event})


events.listen(_record)

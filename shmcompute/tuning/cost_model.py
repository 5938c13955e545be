"""What a call may cost on a backend: bounds that say what is worth a trial, and a first guess.

Bounds are low on purpose: one that is too low costs a few trials, one that is too high would hide
the quickest backend for good.
"""

from __future__ import annotations

from shmcompute.tuning.work import Work

CALL = 2.5e-6  # seconds of a call that are Python's, and no one's to share; at best
# Seconds to hand out nothing, over what a serial call takes; at best.
DISPATCH = {"serial": 0.0, "threads": 1.5e-6, "processes": 5e-6}
GIL = 1e-4  # the same for threads that run Python: each waits for the others' turn to end
STREAM = 2e10  # bytes a second that a core gets through at best

# Seconds that the first call on a backend waits in a process: code is loaded, workers are started.
START = {"serial": 0.0, "threads": 0.3, "processes": 0.7}


def dispatch(backend: str, work: Work) -> float:
    """Seconds of handing out, at best."""
    if backend == "threads" and work.kind == "native":
        return 0.0  # machine code hands out, and a serial call takes Python for its chunk
    held = backend == "threads" and work.kind == "python"
    return GIL if held else DISPATCH[backend]


def bound(backend: str, serial: float, work: Work) -> float:
    """The seconds that a call takes at least, if it takes these serially: all workers share it."""
    own = min(serial, CALL)
    return own + dispatch(backend, work) + (serial - own) / work.parts


def guess(work: Work) -> float:
    """The seconds that a call takes serially at least: it goes through its bytes once."""
    return CALL + work.nbytes / STREAM

"""Imported by the fork server before it forks: what every worker would else do for itself."""

from __future__ import annotations

import gc
import signal

from numba import types

from shmcompute import machine, trampoline
from shmcompute.backends import doorbell
from shmcompute.backends.processes import entry, parent

__all__ = ["entry"]

gc.disable()  # what is made from here on stays: to look for garbage meanwhile takes 0.1 s
try:
    # 0.3 s of Numba's registries, which the first machine code would load in each worker.
    machine.refresh()
    parent.prepare()
    if doorbell.wanted():
        doorbell.prepare()
        # What it takes to make the first trampoline, and that of the commonest kind with it.
        trampoline.made(types.none, (types.float64[::1],), (("part", 0),))
    entry.thread_pools()  # last: of all the libraries that came with the rest
    gc.freeze()  # it is shared: a collection in a worker would write to all of it
finally:
    gc.enable()

# The server was started with Ctrl-C blocked, not to die of one while it imports. Drop one that
# came, and lift the block: its other children, not ours, may want to hear of the next.
if hasattr(signal, "pthread_sigmask"):
    _handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGINT, _handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

"""Imported by the fork server before it forks: what every worker would else do for itself."""

from __future__ import annotations

import gc
import signal

from numba import types

from shmcompute.backends.doorbell import prepare
from shmcompute.backends.processes.worker.main import prepare_watch, thread_pools
from shmcompute.kernels import make_trampoline, refresh

gc.disable()  # what is made from here on stays: to look for garbage meanwhile takes 0.1 s
try:
    # 0.3 s of Numba's registries, which the first machine code would load in each worker.
    refresh()
    prepare_watch()
    prepare()
    # What it takes to make the first trampoline, and that of the commonest kind with it.
    make_trampoline(types.none, (types.float64[::1],), (("part", 0),))
    thread_pools()  # last: of all the libraries that came with the rest
    gc.freeze()  # it is shared: a collection in a worker would write to all of it
finally:
    gc.enable()

# The server was started with Ctrl-C blocked, not to die of one while it imports. Drop one that
# came, and lift the block: its other children, not ours, may want to hear of the next.
_handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGINT, _handler)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGPIPE})

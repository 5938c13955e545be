"""How a process becomes a worker, and how it ends: when told to, or with its parent."""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import util
from multiprocessing.connection import Connection
from typing import Any

import numba
import numpy as np
from numba import types
from numba.np.ufunc import parallel
from threadpoolctl import ThreadpoolController

from shmcompute.backends.doorbell import DoorbellHandle
from shmcompute.backends.processes.protocol import Lost, Pipe, messages
from shmcompute.backends.processes.worker.loop import Worker
from shmcompute.kernels import own_symbols
from shmcompute.system import context, reloads
from shmcompute.system.atomic_words import jitted
from shmcompute.system.unpatched import select, threading

LAST = 19  # the niceness of who has no claim on a core
_THREAD_SETTINGS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


def worker_main(
    connection: Connection[Any, Any],
    number: int,
    threads: int,
    handle: DoorbellHandle,
    environ: dict[str, str],
    initializer: messages.Task | None,
) -> None:
    """Serve until told to exit, or until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    # Handlers that a forked worker inherited from its parent are not for it.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    # Blocked while we started
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGPIPE})
    # It is daemonic only for multiprocessing to end it with its parent: tasks may start processes.
    multiprocessing.current_process().daemon = False
    context.enter_worker(number)
    reloads.enter_worker()
    _take_on(environ)
    np.random.seed()  # else all that were forked draw the same numbers
    atexit.register(_end_at_once)
    own_symbols()
    _cap_threads(threads)
    watch_parent(connection)
    try:
        with suppress(Lost):
            Worker(Pipe(connection, parent=False), handle).serve(initializer)
    except BaseException:  # noqa: BLE001  # a fault of ours: tell it, and never look like success
        traceback.print_exc()
        atexit.unregister(_end_at_once)
        sys.exit(1)
    # And then to the end that multiprocessing has for its processes, with all finalizers: of
    # semaphores that tasks have made, processes that they have started, coverage.


def _end_at_once() -> None:
    """End where exit handlers run, before Numba is taken down, which takes 0.4 s.

    They run in interpreters that were spawned; since Python 3.13 in all workers, and there the
    handler of multiprocessing, which was registered before this one, would come after it.
    """
    util._exit_function()  # type: ignore[attr-defined]  # does nothing the second time
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(0)


def _take_on(environ: dict[str, str]) -> None:
    """Have the parent's environment; a fork server has that of its own start."""
    if os.environ != environ:
        os.environ.clear()
        os.environ.update(environ)
        time.tzset()


@functools.cache
def thread_pools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded; to look for them takes 10 ms."""
    return ThreadpoolController()


def _cap_threads(threads: int) -> None:
    """Let each of the libraries that a kernel may call use at most this many threads."""
    before = os.environ.get(_THREAD_SETTINGS[0])
    os.environ.update(dict.fromkeys(_THREAD_SETTINGS, str(threads)))
    there = _threads()
    thread_pools().limit(limits=threads)
    if threads == 1:
        _end_idle_threads()
        _let_others_go_first(_threads() - there)
    try:
        numba.config.reload_config()  # type: ignore[no-untyped-call]
        # It has a second home, filled when Numba was imported.
        parallel.NUM_THREADS = threads
    except RuntimeError:
        # A forked parent had started Numba's threads: their number is fixed, and as long as the
        # environment says another one Numba compiles nothing.
        os.environ.pop(_THREAD_SETTINGS[0])
        if before is not None:
            os.environ[_THREAD_SETTINGS[0]] = before
        numba.set_num_threads(min(threads, numba.get_num_threads()))


def _end_idle_threads() -> None:
    """Have OpenBLAS end the threads that it starts when it is told to use but one.

    They would wait for work by spinning, on cores that we need, for as long as all the rest of a
    start takes. What ends them is what it does itself before a fork; some builds hide it.
    """
    for pool in thread_pools().lib_controllers:
        end = getattr(getattr(pool, "dynlib", None), "blas_thread_shutdown_", None)
        if end is not None:
            end()


def _threads() -> set[int]:
    """The system's numbers of this process's threads, where it tells them."""
    folder = "/proc/self/task"
    return set(map(int, os.listdir(folder))) if os.path.isdir(folder) else set()


def _let_others_go_first(threads: Iterable[int]) -> None:
    """Have these, which are to do nothing, spin on cores that nobody needs."""
    for thread in threads:
        with suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, thread, LAST)


PATIENT = 1 << 16  # signals that may come while one waits
_POLLED = np.dtype([("fd", np.int32), ("events", np.int16), ("revents", np.int16)])

_int32: Any = types.int32  # called, a type makes a signature, which its own types do not say
_void: Any = types.void
_poll: Any = types.ExternalFunction("poll", _int32(types.int64, types.int64, types.int32))
_exit: Any = types.ExternalFunction("_exit", _void(types.int32))


@jitted
def _end_with(polled: int) -> None:
    """End this process when that descriptor hangs up; returns if one can't wait for it."""
    for _ in range(PATIENT):
        if _poll(polled, 1, -1) > 0:
            _exit(1)


def prepare_watch() -> None:
    """Have what waits for the parent's end compiled."""
    _end_with.compile((types.int64,))


def watch_parent(connection: Connection[Any, Any]) -> None:
    """End this process when the parent's end of the pipe closes.

    A thread waits for that, in machine code: Python's own way needs the GIL to come back, and a
    kernel may hold that for ever.
    """
    prepare_watch()  # not in the thread: a kernel might begin before it is done
    # No events: nothing but hang-up and error.
    polled = np.array([(connection.fileno(), 0, 0)], _POLLED)
    poll = select.poll()
    poll.register(connection.fileno(), 0)

    def wait_for_end() -> None:
        _end_with(polled.ctypes.data)
        poll.poll()
        os._exit(1)

    threading.Thread(target=wait_for_end, name="parent-watch", daemon=True).start()

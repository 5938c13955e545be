"""The worker: one process, one loop; what it attaches it keeps."""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import numba
from numba.np.ufunc import parallel
from threadpoolctl import threadpool_limits

from shmcompute import config
from shmcompute.access import Values
from shmcompute.backends.processes.channel import (
    Channel,
    Exit,
    Failure,
    Forget,
    Load,
    Loaded,
    Lost,
    Packed,
    Ran,
    Ready,
    Run,
    Stop,
)
from shmcompute.backends.processes.packing import pack_error, unpack
from shmcompute.plan import Plan
from shmcompute.storage import Array, Handle, map_handle, mapped

_THREAD_SETTINGS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


def main(connection: Connection[Any, Any], threads: int) -> None:
    """Serve until told to exit, or until the parent is gone. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked while we started
    config.enter_worker()
    _cap_threads(threads)
    _watch_parent(connection)
    try:
        Worker(Channel(connection, parent=False)).serve()
    except Lost:
        _leave(0)
    except BaseException:  # noqa: BLE001  # a fault of ours: tell it, and never look like success
        traceback.print_exc()
        _leave(1)
    _leave(0)


def _look_in(path: Iterable[str]) -> None:
    """Import from where the parent would, also from folders that it came to know since."""
    if sys.path != (found := list(path)):
        sys.path[:] = found
    importlib.invalidate_caches()


def _leave(code: int) -> None:
    # Straight out: this process owns nothing that its end would have to give back.
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


def _cap_threads(threads: int) -> None:
    """At most this many threads in each of the libraries a kernel may call."""
    os.environ.update(dict.fromkeys(_THREAD_SETTINGS, str(threads)))
    threadpool_limits(threads)
    try:
        numba.config.reload_config()  # type: ignore[no-untyped-call]
        # It has a second home, filled when Numba was imported.
        parallel.NUM_THREADS = threads
    except RuntimeError:  # a forked parent had started Numba's threads: their number is fixed
        numba.set_num_threads(min(threads, numba.get_num_threads()))


def _watch_parent(connection: Connection[Any, Any]) -> None:
    """End this process when the parent's end of the pipe closes, even while a kernel runs."""
    if not hasattr(select, "poll"):
        return
    poll = select.poll()
    poll.register(connection.fileno(), 0)  # nothing but hang-up and error

    def wait_for_end() -> None:
        poll.poll()
        os._exit(1)

    threading.Thread(target=wait_for_end, name="parent-watch", daemon=True).start()


class Worker:
    """Plans and mappings of one worker process, and the messages it answers."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._plans: dict[int, Plan] = {}
        # Views own mappings: as long as an array stands here its segment stays mapped.
        self._kept: dict[Handle, Array] = {}

    def serve(self) -> None:
        """Answer messages until `Exit`."""
        self._channel.send(Ready())
        while True:
            match self._channel.receive():
                case Load(number, packed, stale, path):
                    _look_in(path)
                    self._channel.send(self._load(number, packed, stale))
                case Run(number, chunks, values):
                    self._channel.send(self._run(self._plans[number], chunks, values))
                case Forget(handles, stale):
                    self._forget(handles, stale)
                    self._channel.send(Loaded())
                case Exit():
                    return
                case Stop():
                    pass  # it came after the run had ended

    def _load(self, number: int, packed: Packed, stale: Iterable[int]) -> Loaded:
        self._drop(stale)
        try:
            for handle in packed.handles - self._kept.keys():
                self._kept[handle] = map_handle(handle)[1]
            self._plans[number] = unpack(packed)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the caller is to know
            return Loaded(pack_error(None, error))
        return Loaded()

    def _run(self, plan: Plan, numbers: Iterable[int], values: Values) -> Ran:
        done: list[int] = []
        failure: Failure | None = None
        for number in numbers:
            if done and self._channel.pending():
                break  # a Stop, to be read in its turn; or the parent is gone
            try:
                plan.run_chunk(number, values)
            except BaseException as error:  # noqa: BLE001  # sys.exit() in a kernel, too
                failure = pack_error(number, error)
                break
            done.append(number)
        return Ran(tuple(done), failure)

    def _drop(self, stale: Iterable[int]) -> None:
        for number in stale:
            self._plans.pop(number, None)

    def _forget(self, handles: frozenset[Handle], stale: Iterable[int]) -> None:
        self._drop(stale)
        for handle in handles:
            self._kept.pop(handle, None)
        if any(mapped(handle) for handle in handles):
            gc.collect()  # a function that came by value is a cycle, and may hold a view

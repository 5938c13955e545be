"""The worker: one process, one loop; what it attaches it keeps."""

from __future__ import annotations

import functools
import gc
import importlib
import multiprocessing
import os
import pickle
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
from threadpoolctl import ThreadpoolController

from shmcompute import config, machine
from shmcompute.arguments import Number, Values
from shmcompute.backends import doorbell
from shmcompute.backends.processes.channel import (
    Attend,
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
    Rest,
    Result,
    Run,
    Task,
    Tasks,
)
from shmcompute.backends.processes.packing import pack_error, pack_result, unpack
from shmcompute.backends.processes.place import Place
from shmcompute.errors import KernelSerializationError, ShmComputeError
from shmcompute.plan import Plan
from shmcompute.storage import Array, Handle, give, map_handle, mapped

_THREAD_SETTINGS = (
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)


def main(
    connection: Connection[Any, Any], number: int, threads: int, place: Place | None = None
) -> None:
    """Serve until told to exit, or until the parent is gone. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    # What a forked parent would do when told to end, or told of a signal, it alone is to do.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked while we started
    # Daemonic only for multiprocessing to end us with our parent: tasks may start processes.
    multiprocessing.current_process().daemon = False
    config.enter_worker(number)
    machine.own_symbols()
    _cap_threads(threads)
    _watch_parent(connection)
    try:
        channel = Channel(connection, parent=False)
        (Worker(channel) if place is None else Rung(channel, place)).serve()
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
    # Straight out: this process owns nothing that its end would have to give back, but for
    # processes that tasks have started to go with it.
    for child in multiprocessing.active_children():
        if child.daemon:
            child.terminate()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


@functools.cache
def thread_pools() -> ThreadpoolController:
    """The thread pools of the libraries that are loaded; to look for them takes 10 ms."""
    return ThreadpoolController()


def _cap_threads(threads: int) -> None:
    """At most this many threads in each of the libraries a kernel may call."""
    before = os.environ.get(_THREAD_SETTINGS[0])
    os.environ.update(dict.fromkeys(_THREAD_SETTINGS, str(threads)))
    thread_pools().limit(limits=threads)
    if threads == 1:
        _end_idle_threads()
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
    start takes. What ends them is what it does itself before a fork.
    """
    for pool in thread_pools().lib_controllers:
        end = getattr(getattr(pool, "dynlib", None), "blas_thread_shutdown_", None)
        if end is not None:
            end()


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
        self._function: tuple[bytes, Any] = b"", None  # of the latest task, as long as more come

    def serve(self) -> None:
        """Answer messages until `Exit`."""
        self._channel.send(Ready())
        while self._turn():
            pass

    def _turn(self) -> bool:
        """Take one message; False if it was `Exit`."""
        message = self._channel.receive()
        reply = self._reply(message)
        if reply is not None:
            self._channel.send(reply)
        return not isinstance(message, Exit)

    def _reply(self, message: object) -> object:
        match message:
            case Load(number, packed, stale, path):
                _look_in(path)
                return self._load(number, packed, stale)
            case Run(number, chunks, values):
                return self._run(self._plans[number], chunks, values)
            case Forget(handles, stale):
                self._forget(handles, stale)
                return Loaded()
            case Attend(path):
                _look_in(path)
                self._attend()
                return Loaded()
        return None  # a Stop that came after the run had ended, or Exit

    def _load(self, number: int, packed: Packed, stale: Iterable[int]) -> Loaded:
        self._drop(stale)
        try:
            self._keep(packed.handles)
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

    def _attend(self) -> None:
        """Do what comes by the pipe, until told to rest."""
        self._function = b"", None
        while self._attended(self._channel.receive()):
            pass
        self._function = b"", None

    def _attended(self, message: object) -> bool:
        """Answer a message, unless it was to rest. Nothing of a task stays in this process."""
        match message:
            case Tasks(first, tasks):
                for number, task in enumerate(tasks, first):
                    if len(tasks) > 1 and not self._claims(number):
                        break
                    self._channel.send(self._called(task))
            case Forget(handles, stale):
                self._forget(handles, stale)
                self._channel.send(Loaded())
            case Attend(path):  # it has changed
                _look_in(path)
        return not isinstance(message, Rest)

    def _claims(self, number: int) -> bool:
        """Whether it may begin one of several tasks."""
        return True

    def _called(self, task: Task) -> Result | Failure:
        try:
            function, args, keywords = self._unpacked(task)
            value = function(*args, **keywords)
            result = pack_result(value, function)
            self._keep(result.given)
            give(result.given)
        except BaseException as error:  # noqa: BLE001  # sys.exit() in a task, too
            return pack_error(None, error)
        return result

    def _unpacked(self, task: Task) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        try:
            self._keep(task.handles)
            # Tasks of one map have one function, which may take long to unpickle.
            if self._function[0] != task.function:
                self._function = task.function, pickle.loads(task.function)
            return self._function[1], *pickle.loads(task.arguments)
        except ShmComputeError:
            raise
        except BaseException as error:  # unpickling runs any code
            raise KernelSerializationError(
                f"a worker can't unpack this task: {type(error).__name__}: {error}. What it "
                "imports must be importable there too; it has not run"
            ) from error

    def _keep(self, handles: frozenset[Handle]) -> None:
        """Stay attached to these segments, until told to forget them."""
        for handle in handles - self._kept.keys():
            self._kept[handle] = map_handle(handle)[1]

    def _drop(self, stale: Iterable[int]) -> None:
        for number in stale:
            self._plans.pop(number, None)

    def _forget(self, handles: frozenset[Handle], stale: Iterable[int]) -> None:
        self._drop(stale)
        for handle in handles:
            self._kept.pop(handle, None)
        if any(mapped(handle) for handle in handles):
            gc.collect()  # a function that came by value is a cycle, and may hold a view


class Rung(Worker):
    """A worker that is rung for: machine code answers by itself the rings that it can."""

    def __init__(self, channel: Channel, place: Place) -> None:
        super().__init__(channel)
        doorbell.prepare()
        self._block, self._seat = place.taken()
        self._kinds: dict[int, tuple[type[Number], ...]] = {}
        self._compilations = machine.Compilations()

    def _turn(self) -> bool:
        try:
            number = self._seat.wait()
        except BaseException as error:  # noqa: BLE001  # a kernel's, from machine code
            number = self._seat.plan
            self._plans[number].blame(error, self._seat.current)
            self._answer(pack_error(self._seat.current, error))
            return True
        if number != doorbell.NOTE:
            self._answer(self._rung(number))
            return True
        return super()._turn()

    def _reply(self, message: object) -> object:
        reply = super()._reply(message)
        self._seat.compiled(self._compilations.count)
        self._seat.answer()  # before the reply: who has that finds this worker silent
        return reply

    def _claims(self, number: int) -> bool:
        return self._seat.claim(number)

    def _load(self, number: int, packed: Packed, stale: Iterable[int]) -> Loaded:
        answer = super()._load(number, packed, stale)
        if answer.failure is None:
            self._kinds[number] = packed.kinds
            self._tabulate(number)
        return answer

    def _tabulate(self, number: int) -> None:
        frame = self._plans[number].frame
        if frame is not None:
            self._seat.table.put(number, frame)

    def _rung(self, number: int) -> Failure | None:
        """Run by Python what was rung for."""
        plan = self._plans[number]
        if number not in self._seat.table:  # another one had its place
            self._tabulate(number)
        try:
            self._seat.run(plan, self._block.told(self._kinds[number]))
        except BaseException as error:  # noqa: BLE001  # sys.exit() in a kernel, too
            return pack_error(self._seat.current, error)
        return None

    def _answer(self, failure: Failure | None) -> None:
        """Say that this worker writes no more, and what went wrong."""
        self._seat.compiled(self._compilations.count)
        self._seat.answer()
        if failure is not None:  # after: who reads it knows from the bell that it is to come
            self._channel.send(failure)

    def _drop(self, stale: Iterable[int]) -> None:
        super()._drop(stale)
        for number in stale:
            self._kinds.pop(number, None)
            self._seat.table.drop(number)

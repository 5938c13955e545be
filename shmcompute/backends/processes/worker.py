"""The worker: one process, one loop; what it attaches it keeps."""

from __future__ import annotations

import gc
import importlib
import pickle
import sys
from collections.abc import Iterable
from typing import Any

from shmcompute.arguments import Values
from shmcompute.backends.processes.channel import (
    Attend,
    Channel,
    Exit,
    Failure,
    Forget,
    Load,
    Loaded,
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
from shmcompute.errors import KernelSerializationError, ShmComputeError
from shmcompute.plan import Plan
from shmcompute.storage import Array, Handle, give, map_handle, mapped


def _look_in(path: Iterable[str]) -> None:
    """Import from where the parent would, also from folders that it came to know since."""
    if sys.path != (found := list(path)):
        sys.path[:] = found
    importlib.invalidate_caches()


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

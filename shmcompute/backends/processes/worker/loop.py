"""`Worker`: what a worker process does until it is told to exit; what it attaches it keeps."""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from shmcompute.backends.doorbell import NOTE, DoorbellHandle, prepare
from shmcompute.backends.processes.protocol import (
    Pipe,
    exception_pickling,
    messages,
    module_globals,
    pickling,
)
from shmcompute.chunking import (
    Number,
    NumberedSegment,
    bytes_of_frame,
    unpack_arrays,
    unpack_head,
)
from shmcompute.errors import KernelSerializationError, ShmComputeError
from shmcompute.kernels import Compilations
from shmcompute.plans import Plan
from shmcompute.storage import Handle, give, map_handle, mapped
from shmcompute.system.addresses import address
from shmcompute.system.call_context import CallContext, keep_filters
from shmcompute.system.records import COMPILING
from shmcompute.system.surroundings import Surroundings
from shmcompute.typing import Array


class Worker:
    """Plans and mappings of one worker process, the rings and messages that it answers."""

    def __init__(self, pipe: Pipe, handle: DoorbellHandle) -> None:
        prepare()
        self._pipe = pipe
        self._doorbell = handle.attach()
        self._compilations = Compilations(partial(self._doorbell.note, COMPILING))
        self._plans: dict[int, Plan] = {}
        self._types: dict[int, tuple[type[Number], ...]] = {}  # of each plan's numbers
        self._named: dict[int, Array] = {}  # all of the segments that frames name, by number
        # Views own mappings: as long as an array stands here its segment stays mapped.
        self._kept: dict[Handle, Array] = {}

    def serve(self, initializer: messages.Task | None = None) -> None:
        """Call the initializer, then answer rings and messages until `Exit`."""
        failure = None if initializer is None else self._initialize(initializer)
        self._pipe.send(messages.Ready() if failure is None else failure)
        while failure is None and self._answered():
            pass

    def _initialize(self, initializer: messages.Task) -> messages.Failure | None:
        context = pickling.unpack_context(initializer.context)
        try:
            module_globals.keep_globals(
                lambda: self._unpacked(initializer), lambda call: _initialized(context, *call)
            )
        except BaseException as error:  # noqa: BLE001  # sys.exit(), too
            return exception_pickling.pack_error(None, error)
        return None

    def _answered(self) -> bool:
        """Answer what machine code left to Python; False if it was `Exit`."""
        try:
            number = self._doorbell.wait()
        except BaseException as error:  # noqa: BLE001  # a kernel's, from machine code
            self._attached(self._doorbell.plan).blame(error, self._doorbell.current)
            self._answer(exception_pickling.pack_error(self._doorbell.current, error))
            return True
        if number == NOTE:
            return self._reply(self._pipe.receive())
        if not self._tabulated(number):
            self._answer(self._run(number))
        return True

    def _tabulated(self, number: int) -> bool:
        """Whether machine code can answer that ring, now that it has the native plan."""
        try:
            native = self._attached(number).native
        except BaseException:  # noqa: BLE001  # raised again, and answered, where it is run
            return False
        if native is not None:
            self._doorbell.table.put(number, native)
        return native is not None

    def _run(self, number: int) -> messages.Failure | None:
        """Run by Python what was rung for."""
        try:
            plan = self._attached(number)
            self._doorbell.run(plan, self._doorbell.values(self._types[number]))
        except BaseException as error:  # noqa: BLE001  # sys.exit() in a kernel, too
            return exception_pickling.pack_error(self._doorbell.current, error)
        return None

    def _attached(self, number: int) -> Plan:
        """The plan of that number, with the arrays that the frame tells."""
        plan = self._plans[number]
        outlines = plan.views()
        ndims = [outline.ndim for outline in outlines]
        words = memoryview(self._doorbell.frame(bytes_of_frame(ndims))).cast("q")
        views = (
            outline.over(self._memory(number), *place)
            for outline, (number, *place) in zip(outlines, unpack_arrays(words, ndims), strict=True)
        )
        chunks = unpack_head(words)
        return plan.attached(views, plan.chunks if chunks is None else chunks)

    def _answer(self, reply: object) -> None:
        """Say by the doorbell that this worker writes no more, then send the reply, if any.

        In this order: who has a reply finds this worker silent, and who waits for what a kernel
        raised knows from the doorbell that it is to come.
        """
        self._doorbell.note_compilations(self._compilations.count)
        self._doorbell.answer()
        if reply is not None:
            self._pipe.send(reply)

    def _reply(self, message: object) -> bool:
        """Do what a message says and answer it; False if it was `Exit`."""
        failure: messages.Failure | None = None
        retires = False
        match message:
            case messages.Load(number, packed, segments, stale, around):
                self._enter(around)
                failure = self._load(number, packed, segments, stale)
            case messages.Forget(handles, stale):
                self._forget(handles, stale)
            case messages.Attend(around):
                self._enter(around)
                retires = self._attend()
        if retires:  # without an answer: its place at the doorbell may be another one's by now
            return False
        leaves = isinstance(message, messages.Exit)
        self._answer(None if leaves else messages.Loaded(failure))
        return not leaves

    def _load(
        self,
        number: int,
        packed: messages.PackedPlan | None,
        segments: Iterable[NumberedSegment],
        stale: Iterable[int],
    ) -> messages.Failure | None:
        self._drop(stale)
        try:
            for segment in segments:
                self._name(segment)
            if packed is not None:
                self._keep(packed.handles)
                self._plans[number] = pickling.unpack(packed)
                self._types[number] = packed.types
        except BaseException as error:  # noqa: BLE001  # whatever it is, the caller is to know
            return exception_pickling.pack_error(None, error)
        return None

    def _attend(self) -> bool:
        """Do what comes by the pipe, until told to rest or to exit; whether to exit."""
        while self._attended(message := self._pipe.receive()):
            pass
        return isinstance(message, messages.Exit)

    def _attended(self, message: object) -> bool:
        """Answer a message, unless it was to stop. Nothing of a task stays in this process."""
        match message:
            case messages.Tasks(first, tasks, recorded):
                for number, (task, record) in enumerate(zip(tasks, recorded, strict=True), first):
                    if len(tasks) > 1 and not self._doorbell.claim(number):
                        break
                    if record:
                        self._pipe.send(self._doorbell.record(record, 0, self._called, task))
                    else:
                        self._pipe.send(self._called(task))
            case messages.Forget(handles, stale):
                self._forget(handles, stale)
                self._pipe.send(messages.Loaded())
            case messages.Attend(around):  # they have changed
                self._enter(around)
        return not isinstance(message, (messages.Rest, messages.Exit))

    def _called(self, task: messages.Task) -> messages.Result | messages.Failure:
        try:
            function, args, keywords = self._unpacked(task)
            context = pickling.unpack_context(task.context)
            if context is None:
                value = function(*args, **keywords)
            else:
                value = context.run(function, *args, **keywords)
            result = pickling.pack_result(value, function)
            self._keep(result.given)
            give(result.given)
        except BaseException as error:  # noqa: BLE001  # sys.exit() in a task, too
            return exception_pickling.pack_error(None, error)
        return result

    def _unpacked(self, task: messages.Task) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        try:
            self._keep(task.handles)
            # Anew for each task, as in the standard library: a function may have state, which no
            # task is to find as another has left it.
            return pickle.loads(task.function), *pickle.loads(task.arguments)
        except ShmComputeError:
            raise
        except BaseException as error:  # unpickling runs any code
            raise KernelSerializationError(
                f"a worker can't unpack this task: {type(error).__name__}: {error}. What it "
                "imports must be importable there too; it has not run"
            ) from error

    def _memory(self, number: int) -> Any:
        """All bytes of the segment that frames name so; None of what has none."""
        return None if number == 0 else self._named[number].base

    def _name(self, segment: NumberedSegment) -> None:
        """Let frames name a segment by its number."""
        self._keep(frozenset({segment.handle}))
        self._named[segment.number] = self._kept[segment.handle]
        self._doorbell.bases[segment.number] = address(self._kept[segment.handle])

    def _keep(self, handles: frozenset[Handle]) -> None:
        """Stay attached to these segments, until told to forget them."""
        for handle in handles - self._kept.keys():
            self._kept[handle] = map_handle(handle)[1]

    def _drop(self, stale: Iterable[int]) -> None:
        for number in stale:
            self._doorbell.table.drop(number)  # first: it refers to what the plan keeps
            self._types.pop(number, None)
            self._plans.pop(number, None)

    def _forget(self, handles: frozenset[Handle], stale: Iterable[int]) -> None:
        self._drop(stale)
        gone = [self._kept.pop(handle, None) for handle in handles]
        for number, array in list(self._named.items()):
            if any(array is one for one in gone):
                del self._named[number]
                self._doorbell.bases[number] = 0
        del gone
        if any(mapped(handle) for handle in handles):
            gc.collect()  # a function that came by value is a cycle, and may hold a view

    def _enter(self, around: Surroundings) -> None:
        """Find modules and files as the parent does by now; plans may hold what a module was."""
        if around.enter():
            self._drop(list(self._plans))


def _initialized(
    context: CallContext | None,
    function: Callable[..., object],
    args: tuple[Any, ...],
    keywords: dict[str, Any],
) -> None:
    """Call the initializer; filters of warnings that it adds go before those of callers."""
    if context is not None:
        context.run(keep_filters, function, *args, **keywords)

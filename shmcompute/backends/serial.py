"""One chunk after the other, in the calling thread: the debugger's friend."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from shmcompute.backends.base import Backend, Prospect, Report, Terms, overrun
from shmcompute.chunking import Values
from shmcompute.errors import WorkerInitError
from shmcompute.plans import Plan
from shmcompute.system import recording
from shmcompute.system.interrupts import deadline_of
from shmcompute.system.records import Lanes
from shmcompute.tasks import Function, Initializer, WorkItem

if TYPE_CHECKING:
    from shmcompute.backends.native_runner import NativeRunner

_SERIAL = Lanes("serial", (0,), {})


class Serial(Backend):
    """Runs chunks in order. A timeout is looked at between chunks; a kernel can't be stopped."""

    workers = 1
    # Chunks. To make machine code for a call takes some 11 ms, and to call a chunk from Python some
    # 2.5 us more than from there: it is made when so many have lost as much as it costs.
    pays = 4096

    def __init__(self, initializer: Initializer | None = None) -> None:
        self._initializer = initializer
        self._native: NativeRunner | None = None

    @classmethod
    def prospect(cls, plan: Plan, terms: Terms) -> Prospect:  # noqa: ARG003  # others ask
        if plan.sweeps is not None:
            return Prospect(plan.reasons)
        if plan.form.native is not None and not plan.has_scratch:
            return Prospect(plan.reasons)
        alone = "one thread calls it from Python, until machine code for it has paid for its making"
        return Prospect(tuple(reason or alone for reason in plan.reasons))

    def run(
        self,
        plan: Plan,
        values: Values,
        timeout: float | None,
        report: Report | None = None,
        run_chunk: Callable[..., None] | None = None,
    ) -> None:
        if run_chunk is None:
            if (recorder := recording.recorder) is not None:
                recorder.run_here(plan, _SERIAL, self.run, plan, values, timeout, report)
                return
            run_chunk = plan.run_chunk
            if timeout is None and report is None and self._has_run(plan, values):
                return
        self.ready()
        if plan.sweeps is not None:
            plan.sweeps.alone()
        deadline = None if timeout is None else deadline_of(timeout)
        for number in range(len(plan.chunks)):
            if deadline is not None and time.monotonic() > deadline:
                raise overrun(plan, timeout, list(range(number, len(plan.chunks))))
            run_chunk(number, values)
            if report is not None:
                report(number + 1)

    def _has_run(self, plan: Plan, values: Values) -> bool:
        """Run it by machine code, if that has paid for itself and is free."""
        form = plan.form
        if plan.sweeps is not None or plan.has_scratch:
            return False  # machine code knows the scratch of workers alone
        if form.native is None:
            form.by_python += plan.count
            if form.is_made or form.by_python < self.pays or plan.native is None:
                return False
        assert form.native is not None  # noqa: S101  # for the type checker
        if self._native is None:
            from shmcompute.backends.native_runner import native_runner  # noqa: PLC0415  # 9 ms

            self._native = native_runner()
        self.ready()
        return self._native.run(plan, form.native.address, values)

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        item = WorkItem(function, args, keywords)
        task = recording.submitted(function.name, _SERIAL.pool)
        try:
            self.ready()
        except WorkerInitError as error:
            item.fail(error)
        else:
            if task is None:
                item.run()
            else:
                task.run(item.run)
        return item.future

    def ready(self, timeout: float | None = None) -> None:
        if self._initializer is not None:
            self._initializer()

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        pass

    def close(self, *, wait: bool = True) -> None:
        pass

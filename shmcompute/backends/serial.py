"""One chunk after the other, in the calling thread: the debugger's friend."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from shmcompute.backends.base import Backend, Report, overrun
from shmcompute.chunking import Values
from shmcompute.plans import Plan
from shmcompute.system.interrupts import deadline_of
from shmcompute.tasks import Function, WorkItem


class Serial(Backend):
    """Runs chunks in order. A timeout is looked at between chunks; a kernel can't be stopped."""

    workers = 1

    def run(
        self, plan: Plan, values: Values, timeout: float | None, report: Report | None = None
    ) -> None:
        if plan.sweeps is not None:
            plan.sweeps.alone()
        deadline = None if timeout is None else deadline_of(timeout)
        for number in range(len(plan.chunks)):
            if deadline is not None and time.monotonic() > deadline:
                raise overrun(plan, timeout, list(range(number, len(plan.chunks))))
            plan.run_chunk(number, values)
            if report is not None:
                report(number + 1)

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        item = WorkItem(function, args, keywords)
        item.run()
        return item.future

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        pass

    def close(self, *, wait: bool = True) -> None:
        pass

"""`repeat`: all sweeps of a call, by machine code or one by one, and what is said of failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from shmcompute.chunking import bytes_of
from shmcompute.errors import KernelTimeoutError, WorkerLostError
from shmcompute.iterate.call import Call
from shmcompute.iterate.until import Condition, Measurement
from shmcompute.plans import Plan


def repeat(call: Call, times: int, first: int = 0) -> None:
    """Run so many sweeps, of which this is the number of the first."""
    if call.many is not None and times:
        _run_many(call, call.many, times, first)
        return
    for number in range(first, first + times):
        with _told(call, partial(int, number)):
            call.sweep(number)
            call.ended(number + 1)


def repeat_until(call: Call, measurement: Measurement, condition: Condition, times: int) -> int:
    """Run sweeps until a condition holds, so many at most; how many were run."""
    every = condition.every
    for done in range(0, times - every + 1, every):
        last = done + every - 1
        repeat(call, every - 1, done)
        with _told(call, partial(int, last)):
            number = measurement.sweep(last)
            call.ended(last + 1)
        if condition.holds(number):
            return last + 1
    repeat(call, times % every, times - times % every)
    return times


def _run_many(call: Call, plan: Plan, times: int, first: int) -> None:
    """Run sweeps in machine code, some at a time."""
    sweeps = plan.sweeps
    assert sweeps is not None  # noqa: S101  # for the type checker
    with _told(call, lambda: first + sweeps.schedule.done(sweeps.ended(), times)):
        cost = bytes_of([link.arguments for link in call.links])

        def run_once() -> None:
            call.run(plan, call.values)
            call.ended(first + sweeps.schedule.done(sweeps.ended(), times))

        sweeps.run(times, first, run_once, cost, call.left())


@contextmanager
def _told(call: Call, done: Callable[[], int]) -> Iterator[None]:
    """Have errors say after which sweep they came."""
    try:
        yield
    except (KernelTimeoutError, WorkerLostError) as error:
        _tell(error, call, done())
        raise
    except Exception as error:
        with suppress(Exception):  # a kernel's exception may refuse a note
            error.add_note(f"after sweep {done()} of {call.name}")
        raise


def _tell(error: KernelTimeoutError | WorkerLostError, call: Call, done: int) -> None:
    """Say which sweeps were over, and that nothing of what others write is defined."""
    error.sweep = done
    overran = isinstance(error, KernelTimeoutError) and "overran" in error.args[0]
    if "nothing has run" in error.args[0] or not (error.chunks or overran):
        error.args = (f"after sweep {done}: {error.args[0]}",)
        return
    if call.many is not None:
        error.chunks = [call.extent]
    what = "all that the call writes is undefined" if call.many else "its chunks are undefined"
    if not error.chunks:
        what = "what it has written is complete"
    if overran:
        text = f"kernel {call.name} overran its timeout of {call.timeout} s"
    else:
        text = error.args[0].partition("; the content")[0]
    error.args = (f"{text}, after sweep {done}; {what}",)

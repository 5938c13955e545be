"""How the front doors run a call: by a plan that is known, or that is built and kept.

The file is long because a call has many ways in and one way out, which are compared by reading.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, Protocol

from shmcompute import config
from shmcompute.arrays import SharedArray
from shmcompute.backends import Backend
from shmcompute.chains import run_chain, size_of_work
from shmcompute.chunking import Values, is_split, range_start, range_stop
from shmcompute.default_pools import (
    default_backend,
    default_pool,
    default_pools,
    default_workers,
)
from shmcompute.errors import KernelTimeoutError
from shmcompute.plans import (
    Calls,
    Options,
    Plan,
    arrays_of,
    build_plan,
    call_key,
    calls_of,
    cut_range,
    run_watched,
)
from shmcompute.pool import Pool
from shmcompute.progress import Asked, Meter
from shmcompute.system import context
from shmcompute.tasks import CallQueue, run_at_once

Outputs = SharedArray | tuple[SharedArray, ...] | None  # what `per_chunk` has asked for


class Workers(Protocol):
    """Who runs a call: a `Pool`, or what a call is given of it that was submitted."""

    @property
    def running(self) -> Backend:
        """The workers themselves."""

    @property
    def submitted(self) -> CallQueue:
        """The calls that come first."""


class _Turn(NamedTuple):
    """A pool for a submitted call whose turn has come; it works also when the pool is closing."""

    running: Backend
    submitted: CallQueue


def call(
    kernel: Any,
    args: tuple[Any, ...],
    options: Options,
    chosen: Pool,
    timeout: float | None,
    extent: tuple[int, int] | None = None,
    progress: Asked = None,
) -> Outputs:
    """Run a call by a plan that is known already, or that is kept for calls like it.

    Parameters
    ----------
    extent : tuple of int, optional
        The range that is cut into chunks, where no array is: it is no part of the plan.
    progress : optional
        As `asked_for` returns it.
    """
    seconds = None if timeout is None else config.timeout(timeout)
    if chosen.records is not None:
        return _call_tuned(kernel, args, options, chosen, seconds, extent, progress)
    if options.debug:
        full = options._replace(extent=extent)
        built = build_plan(calls_of(kernel, args), full, chosen.running)
        return run_debugged(built, built.values, chosen, seconds, progress)
    key, values = call_key(kernel, args, options)
    known = chosen.plans.find(key)
    if known is None:
        whole = options._replace(extent=extent)
        known = chosen.plans.build(kernel, args, whole, chosen.running, key)
        values = known.values
    elif extent is not None:
        known = found_over(known, options, extent, chosen.workers)
    return run(known, values, chosen, seconds, progress)


def found_over(plan: Plan, options: Options, extent: tuple[int, int], workers: int) -> Plan:
    """A plan like one that is known, over another range."""
    found = plan.ranges.get(extent)
    if found is None:
        found = plan.keep(extent, plan.over(cut_range(plan.links, options, extent, workers)))
    return found


def _call_tuned(
    kernel: Any,
    args: tuple[Any, ...],
    options: Options,
    chosen: Pool,
    seconds: float | None,
    extent: tuple[int, int] | None,
    progress: Asked,
) -> Outputs:
    """Run a call on the backend that suits it."""
    if chosen.submitted.busy:
        seconds = await_turn(chosen, seconds)
    key, values = call_key(kernel, args, options)
    place = key if extent is None else (key, (extent[1] - extent[0]).bit_length())
    noted = chosen.plans.find_noted(place) if seconds is None else None
    if noted is None or noted.note.left <= 0:
        whole = options._replace(extent=extent)
        known = key, values, place
        return _call_measured(kernel, args, whole, chosen, seconds, known, progress)
    note = noted.note
    note.left -= 1
    plan = noted.plan
    if extent is not None:
        plan = found_over(plan, options, extent, note.pool.workers)
    return run(plan, values, note.pool, None, progress)


def _call_measured(
    kernel: Any,
    args: tuple[Any, ...],
    options: Options,
    chosen: Pool,
    seconds: float | None,
    known: tuple[Hashable | None, Values, Hashable],
    progress: Asked,
) -> Outputs:
    """Run a call on a backend that may be tried, and measure it."""
    from shmcompute import tuned  # noqa: PLC0415  # for backend="auto" only
    from shmcompute.tuning import Decision  # noqa: PLC0415

    if (only := tuned.only_pool(chosen, options, seconds)) is not None:
        extent, options = options.extent, options._replace(extent=None)
        return call(kernel, args, options, only, seconds, extent, progress)
    key, values, place = known
    calls = calls_of(kernel, args)
    plans: list[Plan] = []

    def prepare(pool: Pool) -> Callable[[], Outputs]:
        found = pool.plans.find(key)
        if found is None:
            plan = pool.plans.build(kernel, args, options, pool.running, key)
        elif options.extent is not None:
            plan = found_over(found, options, options.extent, pool.workers)
        else:
            plan = found
        plans[:] = [plan]
        given = plan.values if found is None else values
        return partial(run, plan, given, pool, None, progress)

    record = tuned.record_of(chosen, calls, options)
    result, pool, left = tuned.run_tuned(chosen, record, prepare, whole=key is None)
    if left and key is not None:
        chosen.plans.keep(place, plans[0], arrays_of(calls), Decision(pool, left))
    return result


def over_range(calls: Calls, options: Options) -> tuple[Calls, Options]:
    """Calls whose first argument is a range and which split nothing, as calls over that range.

    Raises
    ------
    ValueError
        For the kernels of a chain over unlike ranges.
    """
    ranges = {_range_of(*args) for _, *args in calls}
    if ranges == {None}:
        return calls, options
    if len(ranges) > 1:
        raise ValueError(
            "kernels of one chain go over one range: expected the same range first among the "
            f"arguments of each, got {', '.join(map(repr, ranges))}"
        )
    (numbers,) = ranges
    assert numbers is not None  # noqa: S101  # for the type checker
    over = [(kernel, range_start, range_stop, *args[1:]) for kernel, *args in calls]
    return over, options._replace(extent=extent_of(numbers))


def _range_of(*args: Any) -> range | None:
    is_over = bool(args) and type(args[0]) is range and not any(map(is_split, args))
    return args[0] if is_over else None


def extent_of(numbers: range) -> tuple[int, int]:
    """Where a range starts and ends that a kernel is called over."""
    if numbers.step != 1:
        raise ValueError(f"{numbers!r}: expected a step of 1; the kernel may take steps itself")
    return numbers.start, numbers.stop


def run(
    plan: Plan, values: Values, pool: Workers, timeout: float | None, progress: Asked = None
) -> Outputs:
    """Run a plan; what it makes."""
    if progress is not None:
        with Meter(progress, size_of_work(plan), "chunk", plan.name) as meter:
            return with_outputs(plan, lambda made: run_chunks(made, values, pool, timeout, meter))
    if plan.outputs:
        return with_outputs(plan, lambda made: run_chunks(made, values, pool, timeout))
    run_chunks(plan, values, pool, timeout)
    return None


def run_debugged(
    plan: Plan, values: Values, pool: Workers, timeout: float | None, progress: Asked = None
) -> Outputs:
    """Run a plan under ``debug=True``."""

    def watched(made: Plan) -> None:
        if made.apart:
            run_chunks(made, values, pool, timeout, meter)
        else:
            run_watched(lambda part: run_chunks(part, values, pool, timeout, meter), made)

    if progress is None:
        meter = None
        return with_outputs(plan, watched)
    with Meter(progress, size_of_work(plan), "chunk", plan.name) as meter:
        return with_outputs(plan, watched)


def run_chunks(
    plan: Plan, values: Values, pool: Workers, timeout: float | None, meter: Meter | None = None
) -> None:
    """Run a plan that makes nothing, or has it already."""
    if pool.submitted.busy and plan.count:
        timeout = await_turn(pool, timeout)
    if plan.apart:
        run_chain(plan, values, pool.running, timeout, meter)
        return
    if plan.count:
        pool.running.run(plan, values, timeout, meter)
    if meter is not None:
        meter.add(plan.count)


def await_turn(pool: Workers, timeout: float | None) -> float | None:
    """Wait for the calls that were submitted before; how much of the time is left."""
    if not pool.submitted.busy or pool.running.within_call():
        return timeout
    since = time.monotonic()
    if not pool.submitted.wait(timeout):
        raise KernelTimeoutError(
            f"the pool was busy with submitted calls for {timeout} s; nothing has run"
        )
    return None if timeout is None else max(0.0, timeout + since - time.monotonic())


def submit(
    call: Callable[[Workers], Outputs], pool: Pool, order: Pool | None = None
) -> Future[Outputs]:
    """Have a call made by a pool when those have ended that were submitted before.

    Parameters
    ----------
    order : Pool, optional
        The pool whose calls come one after the other, if it is one that chooses among others.
    """
    if context.inside_kernel():  # it would wait for workers that wait for it
        return run_at_once(partial(call, default_pool("serial")))
    order = order or pool
    order.check_open()
    if order.backend == "serial":
        return run_at_once(partial(call, pool))
    return order.submitted.submit(partial(call, _Turn(pool.running, pool.submitted)))


def with_outputs(plan: Plan, run: Callable[[Plan], None]) -> Outputs:
    """Run a plan with the arrays that it asks for (`per_chunk`); these, unless it fails."""
    with ExitStack() as unless_all_is_well:
        arrays = [
            unless_all_is_well.enter_context(SharedArray.zeros(shape, dtype))
            for shape, dtype in plan.outputs
        ]
        run(plan.with_outputs([array.array for array in arrays]) if arrays else plan)
        unless_all_is_well.pop_all()
    return tuple(arrays) if len(arrays) > 1 else next(iter(arrays), None)


def pool_for(pool: Pool | None, backend: str | None) -> Pool:
    """Whose workers run a call that asks for these."""
    if pool is not None or backend is not None:
        _check_asked(pool, backend)
    if context.in_worker or context.nesting.depth:  # it would wait for workers that wait for it
        return default_pool("serial")
    if pool is None:
        asked = backend or os.environ.get("SHMCOMPUTE_BACKEND", "")
        return default_pools.get(asked) or default_pool(backend)
    return pool


class Runner(NamedTuple):
    """Who runs a call."""

    backend: str
    why: str
    pool: Pool | None  # None where it would be made first
    workers: int


def runner_for(pool: Pool | None, backend: str | None) -> Runner:
    """What `pool_for` answers, and why. No pool is made that would start workers."""
    if pool is not None or backend is not None:
        _check_asked(pool, backend)
    if context.inside_kernel():
        why = "a call within a kernel or task is run by who makes it"
        return Runner("serial", why, default_pools.get("serial"), 1)
    if pool is not None:
        return Runner(pool.backend, "pool= is one of these", pool, pool.workers)
    name, why = default_backend(backend)
    asked = default_pools.get(backend or os.environ.get("SHMCOMPUTE_BACKEND", ""))
    same = (made for made in default_pools.values() if made.backend == name)
    found = asked or next(same, None)
    if found is None and name == "auto":  # which starts nobody
        found = default_pool(backend)
    return Runner(name, why, found, default_workers(name) if found is None else found.workers)


def _check_asked(pool: Pool | None, backend: str | None) -> None:
    if pool is not None and not isinstance(pool, Pool):
        raise TypeError(f"pool: expected a shmcompute.Pool, got {type(pool).__name__}")
    if pool is not None and backend is not None and backend != pool.backend:
        raise ValueError(f"backend={backend!r}, but the pool's is {pool.backend!r}; give one")
    if backend is not None:
        config.one_of("backend", backend, config.CHOICES)

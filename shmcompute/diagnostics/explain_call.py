"""`explain`: what a call would do, and why. It binds and compiles as `plan` does; nothing runs."""

from __future__ import annotations

from typing import Any

from shmcompute import config
from shmcompute.backends import Backend, Prospect, Terms, backend_class
from shmcompute.calls import Runner, over_range, runner_for
from shmcompute.diagnostics.accounts import (
    chunk_account,
    copied_bytes,
    kernel_account,
    order_of,
    traffic,
    versions_of,
)
from shmcompute.diagnostics.advice import advise
from shmcompute.diagnostics.case import Case
from shmcompute.diagnostics.explanation import Explanation
from shmcompute.kernels import dispatchers_of
from shmcompute.plans import (
    Calls,
    Options,
    Plan,
    arrays_of,
    build_plan,
    calls_of,
    why_bound_anew,
)
from shmcompute.pool import Pool
from shmcompute.progress import Asked, asked_for
from shmcompute.tuned import choice_of


class _Target:
    """What a backend is to a plan, though none may be there."""

    def __init__(self, runner: Runner) -> None:
        running = None if runner.pool is None else runner.pool.running
        if isinstance(running, Backend):  # else it is closed, or not made yet
            self.kind = type(running)
        else:
            self.kind = backend_class(runner.backend)
        self.shared, self.threaded = self.kind.shared, self.kind.threaded
        self.workers = runner.workers
        self.caller_runs = self.kind.caller_runs and not self.kind.shared
        if runner.pool is not None:
            self.caller_runs = runner.pool.running.caller_runs

    def prospect(self, plan: Plan, timeout: float | None) -> Prospect:
        """How it would run a plan, or all that is run in its place."""
        terms = Terms(self.workers, timeout is not None, self.caller_runs)
        parts: tuple[Plan, ...] = (plan,)
        if plan.apart:
            parts = plan.stages if plan.skewed is None else (plan.skewed,)
        found = [self.kind.prospect(part, terms) for part in parts]
        sent = [one.sent for one in found if one.sent is not None]
        return Prospect(
            # One that goes skewed has its links twice.
            tuple(reason for one in found for reason in one.reasons)[: len(plan.links)],
            next((one.own for one in found if one.own), None),
            sum(sent) if sent else None,
            tuple(source for one in found for source in one.sources)[: len(plan.links)],
        )


def explain(
    kernel: Any,
    *args: Any,
    axis: int = 0,
    chunksize: int | None = None,
    schedule: str = "static",
    pool: Pool | None = None,
    backend: str | None = None,
    timeout: float | None = None,
    retries: int = 0,
    debug: bool | None = None,
    progress: Asked = None,
) -> Explanation:
    """Say what a call would do: who would run it, in which parts, which way, and why so.

    Nothing is run, and no worker is started. The call is bound, and its kernels are compiled, as
    `plan` does; what a call would refuse, this refuses, too.

    Parameters
    ----------
    kernel, *args, axis, chunksize, schedule, pool, backend, timeout, retries, debug, progress
        As for `parallel_apply`, or, with a `range` before all other arguments, for `parallel_for`.

    Returns
    -------
    Explanation
        It prints, shows as HTML in notebooks, and has all it says as attributes.

    Raises
    ------
    TypeError, ValueError, KernelTypeError, KernelSerializationError
        As `parallel_apply`, before anything runs.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def scale(x, factor):
    ...     x *= factor
    >>> with sc.SharedArray(np.ones(1_000_000)) as arr:
    ...     told = sc.explain(scale, arr, 2.0, backend="threads")
    >>> told.way, told.reason
    ('Python', 'it is a Python function')
    >>> print(told.advice[0].topic)
    gil
    """
    seconds, chosen = config.timeout(timeout), runner_for(pool, backend)
    by_default = config.switched_on("DEBUG") if chosen.pool is None else chosen.pool.debug
    guarded = by_default if debug is None else bool(debug)
    options = Options(axis, chunksize, schedule, retries, guarded)
    if progress is not None:
        options = options._replace(fine=asked_for(progress) is not None)
    calls, options = over_range(calls_of(kernel, args), options)
    chosen = _of_one_kind(chosen, calls, options, seconds)
    target = _Target(chosen)
    before = versions_of([one for function, *_ in calls for one in dispatchers_of(function)])
    plan = build_plan(calls, options, target)
    prospect = target.prospect(plan, seconds)
    anew = "it is debugged" if guarded else why_bound_anew(calls, arrays_of(calls).plain)
    return _explanation(plan, options, chosen, target, prospect, before, anew)


def _of_one_kind(runner: Runner, calls: Calls, options: Options, timeout: float | None) -> Runner:
    """Who runs a call, where that is chosen anew for each."""
    if runner.pool is None or runner.pool.records is None:
        return runner
    found = choice_of(runner.pool, calls, options, timeout)
    pool = runner.pool.made(found.backend)
    workers = 1 if found.backend == "serial" else runner.workers
    return Runner(found.backend, f"auto: {found.why}", pool, workers)


def explain_plan(plan: Plan, options: Options, pool: Pool, timeout: float | None) -> Explanation:
    """The same of a plan that there is: it is bound, and all is compiled."""
    chosen = Runner(pool.backend, "it is its plan's", pool, pool.workers)
    target = _Target(chosen)
    dispatchers = [one for link in plan.links for one in dispatchers_of(link.kernel.function)]
    known = versions_of(dispatchers)
    return _explanation(
        plan, options, chosen, target, target.prospect(plan, timeout), known, anew=None
    )


def _explanation(
    plan: Plan,
    options: Options,
    chosen: Runner,
    target: _Target,
    prospect: Prospect,
    before: frozenset[int],
    anew: str | None,
) -> Explanation:
    chunks = chunk_account(plan.skewed or plan, options, target.workers)
    sources = prospect.sources or (None,) * len(plan.links)
    kernels = tuple(
        kernel_account(link, plan, reason, source, before)
        for link, reason, source in zip(plan.links, prospect.reasons, sources, strict=True)
    )
    read, written = traffic(plan, chunks)
    bound = [argument for link in plan.links for argument in link.arguments.bound]
    started = chosen.pool is not None
    case = Case(plan, options, target.kind, target.workers, started, chunks, kernels, anew)
    return Explanation(
        name=plan.name,
        backend=chosen.backend,
        why=chosen.why,
        workers=target.workers,
        started=started,
        chunks=chunks,
        order=order_of(plan),
        kernels=kernels,
        own=prospect.own,
        sent=prospect.sent,
        copied=sum(copied_bytes(argument, plan) for argument in bound)
        + (read + written if target.kind.copies else 0),
        read=read,
        written=written,
        anew=anew,
        advice=tuple(advise(case)),
    )

"""`parallel_apply` and `plan`: the front door."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from shmcompute import config
from shmcompute.arrays import SharedArray
from shmcompute.chunking import Chunk, Values, chunks
from shmcompute.plans import (
    Options,
    Plan,
    build_plan,
    call_key,
    calls_of,
    form_key,
    note_kinds,
    plain_arrays,
    rebuild_plan,
    run_watched,
    shared_arrays,
)
from shmcompute.pool import Pool, default_pool, default_pools
from shmcompute.system import context
from shmcompute.system.tracebacks import shorten

Outputs = SharedArray | tuple[SharedArray, ...] | None  # what `per_chunk` has asked for


class BoundPlan:
    """A call that is bound once and can be run again and again; see `plan`."""

    def __init__(
        self, plan: Plan, pool: Pool, arrays: tuple[SharedArray, ...], timeout: float | None
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._arrays = arrays
        self._timeout = timeout
        self._values = plan.values

    @property
    def chunks(self) -> tuple[tuple[int, int], ...]:
        """The ranges ``[start, stop)`` along the split axis that the kernel is called with."""
        return tuple(self._plan.chunks)

    def __call__(self) -> Outputs:
        """Run it. Returns when no worker writes any more, what `per_chunk` has asked for."""
        for array in self._arrays:
            array.array  # noqa: B018  # raises ClosedError
        pool = default_pool("serial") if context.inside_kernel() else self._pool
        return _run(self._plan, self._values, pool, self._timeout)

    def run(self, plan: Plan) -> None:
        """Run this plan, or a part of it, where and as this one is run."""
        _run_chunks(plan, self._values, self._pool, self._timeout)

    def __repr__(self) -> str:
        return f"<plan of {self._plan.name}: {len(self.chunks)} chunks on {self._pool!r}>"


class DebugPlan(BoundPlan):
    """The same under ``debug=True``."""

    def __call__(self) -> Outputs:
        for array in self._arrays:
            array.array  # noqa: B018  # raises ClosedError
        return _with_outputs(self._plan, partial(run_watched, self.run))


def plan(
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
) -> BoundPlan:
    """Bind a call once; calling the result runs it, as often as you like.

    Takes what `parallel_apply` takes, and checks and compiles all of it now. To worker processes it
    sends what is not shared (a Python function with its globals, a plain array in `whole`) at its
    first run; what changes of that later they do not see.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.zeros(5)) as arr:
    ...     step = sc.plan(np.add, arr, 1.0)
    ...     for _ in range(3):
    ...         step()
    ...     print(arr.array)
    [3. 3. 3. 3. 3.]
    """
    seconds, chosen = _seconds(timeout), pool_for(pool, backend)
    guarded = chosen.debug if debug is None else bool(debug)
    options = Options(axis, chunksize, schedule, retries, guarded)
    return _bound(kernel, args, options, chosen, seconds)


def _bound(
    kernel: Any, args: tuple[Any, ...], options: Options, pool: Pool, timeout: float | None
) -> BoundPlan:
    calls = calls_of(kernel, args)
    built = build_plan(calls, options, pool.running)
    kind = DebugPlan if options.debug else BoundPlan
    return kind(built, pool, shared_arrays(calls), timeout)


def parallel_apply(
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
) -> Outputs:
    """Run `kernel` on every chunk of the arrays, in place, on every core.

    Parameters
    ----------
    kernel : callable, or list of them
        A Numba dispatcher, a NumPy or Numba ufunc (called with ``out=`` the first split argument),
        or any Python callable. It writes in place and returns nothing, or what it was given (as
        all do that take ``out=``). It may come from anywhere, and no ``__main__`` guard is needed.
        A list is a chain: each chunk goes through all of its kernels before the next, so memory is
        crossed once. A link of a chain may also be a tuple ``(kernel, *args)``, with arguments of
        its own in place of those of the call.
    *args
        What it is called with. A `SharedArray`, or an ndarray view of one, is split along `axis`;
        see `split`, `read`, `write`, `whole`, `shared`, `offset`, `chunk`, `scratch` and
        `per_chunk`. All else is passed as it is.
    axis : int
        Axis along which arguments are split, unless they name their own.
    chunksize : int, optional
        Elements along the axis that one call of the kernel gets. In a chain, by default, as many
        as stay in a core's second-level cache; with `retries`, about as many as stay in its caches.
    schedule : {'static', 'dynamic', 'guided'}
        Who takes which chunk, as in OpenMP: dealt round in advance, or the next free worker takes
        the next one, of constant or of falling size.
    pool : Pool, optional
        Whose workers; by default a common pool, made at first use.
    backend : {'processes', 'threads', 'serial'}, optional
        The common pool of that kind. By default ``SHMCOMPUTE_BACKEND``, else processes.
    timeout : float, optional
        Seconds. Worker processes that overrun are killed and replaced; threads can't be.
    retries : int
        How often chunks that a worker left when it died are run again, by others, within this call.
        What a chunk is about to write is copied first, and put back before it is run again: each
        chunk is done exactly once. After any failure, chunks that were not done read as before.
        Refused is a kernel that brings a shared array along, in a partial, a closure or a
        container, to be written by all chunks.
    debug : bool, optional
        Whether to look for what a wrong kernel does beside its work, slowly. Each chunk is run on
        copies between guard zones, and written back if all went well: else it reads as before.
        Each worker takes some three times the memory that its chunk reaches over. Numba's kernels
        are compiled with ``boundscheck``. Where a kernel brings arrays along that all chunks see,
        chunks run one after another, and what each has changed there is looked at. By default
        ``SHMCOMPUTE_DEBUG``, as it was when the pool was made.

    Returns
    -------
    SharedArray, tuple of them, or None
        The outputs of each chunk, where arguments ask for them: see `per_chunk`.

    Raises
    ------
    TypeError, ValueError
        For arguments that can't be split, or that see what other chunks write in another argument,
        before anything runs.
    KernelTypeError
        If the kernel does not take them, before anything runs.
    KernelSerializationError
        If the kernel or an argument does not travel, before anything runs.
    KernelTimeoutError, WorkerLostError
        With the chunks that are undefined; no worker writes any more.
    OutOfBoundsError, ReadOnlyError
        Under ``debug``, for a kernel that wrote outside of its part, or what it was to read. An
        index that Numba finds out of bounds is an ``IndexError``.
    RuntimeWarning
        Under ``debug``, of a kernel that changed nothing, that brings along what other chunks
        write, or whose chunks change the same elements of it without atomics or a lock.
    Exception
        What a kernel raises comes as its own type, with a note that names the chunk and the
        worker's traceback as its cause. Other chunks may have run.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> def scale(x, factor):
    ...     x *= factor
    >>> with sc.SharedArray(np.arange(4.0)) as arr:
    ...     sc.parallel_apply(scale, arr, 10)
    ...     print(arr.array)
    [ 0. 10. 20. 30.]

    A chain, whose second link has an argument of its own:

    >>> with sc.SharedArray(np.arange(4.0)) as arr:
    ...     sc.parallel_apply([np.negative, (scale, arr, 3), np.square], arr)
    ...     print(arr.array)
    [ 0.  9. 36. 81.]
    """
    chosen = pool_for(pool, backend)
    guarded = chosen.debug if debug is None else bool(debug)
    options = Options(axis, chunksize, schedule, retries, guarded)
    return call(kernel, args, options, chosen, timeout)


def call(
    kernel: Any,
    args: tuple[Any, ...],
    options: Options,
    chosen: Pool,
    timeout: float | None,
    extent: tuple[int, int] | None = None,
) -> Outputs:
    """Run a call by a plan that is known already, or that is kept for calls like it.

    Parameters
    ----------
    extent : tuple of int, optional
        The range that is cut into chunks, where no array is: it is no part of the plan.
    """
    seconds = None if timeout is None else _seconds(timeout)
    if options.debug:
        try:
            return _bound(kernel, args, options._replace(extent=extent), chosen, seconds)()
        except BaseException as error:
            shorten(error)
            raise
    key, values = call_key(kernel, args, options)
    known = chosen.plans.find(key)
    if known is None:
        full = options if extent is None else options._replace(extent=extent)
        known = _built(kernel, args, full, chosen, key)
        values = known.values
    elif extent is not None:
        known = known.over(_cut(options, extent, chosen.workers))
    return _run(known, values, chosen, seconds)


def _built(
    kernel: Any, args: tuple[Any, ...], options: Options, pool: Pool, key: Hashable | None
) -> Plan:
    """The plan of a call, which is kept: from a form that is known, if there is one."""
    calls, plans = calls_of(kernel, args), pool.plans
    same = form_key(kernel, args, options._replace(extent=None))
    form = plans.find_form(same)
    built = None if form is None else rebuild_plan(form, args, options, pool.running)
    if built is None:
        built = build_plan(calls, options, pool.running)
        if same is not None:
            note_kinds(built)
            plans.keep_form(same, built)
    if options.extent is None or not (options.retries or options.schedule == "guided"):
        plans.keep(key, built, shared_arrays(calls), plain_arrays(calls))
    return built


def _cut(options: Options, extent: tuple[int, int], workers: int) -> Sequence[Chunk]:
    first, last = extent
    return chunks(max(0, last - first), workers, options.schedule, options.chunksize, first)


def _run(plan: Plan, values: Values, pool: Pool, timeout: float | None) -> Outputs:
    if plan.outputs:
        return _with_outputs(plan, lambda made: _run_chunks(made, values, pool, timeout))
    _run_chunks(plan, values, pool, timeout)
    return None


def _run_chunks(plan: Plan, values: Values, pool: Pool, timeout: float | None) -> None:
    if plan.chunks:
        try:
            pool.running.run(plan, values, timeout)
        except BaseException as error:
            shorten(error)
            raise


def _with_outputs(plan: Plan, run: Callable[[Plan], None]) -> Outputs:
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
    if pool is not None and not isinstance(pool, Pool):
        raise TypeError(f"pool: expected a shmcompute.Pool, got {type(pool).__name__}")
    if pool is not None and backend is not None and backend != pool.backend:
        raise ValueError(f"backend={backend!r}, but the pool's is {pool.backend!r}; give one")
    if backend is not None:
        config.one_of("backend", backend, config.BACKENDS)
    if context.in_worker or context.nesting.depth:  # it would wait for workers that wait for it
        return default_pool("serial")
    if pool is None:
        asked = backend or os.environ.get("SHMCOMPUTE_BACKEND", "")
        return default_pools.get(asked) or default_pool(backend)
    return pool


def _seconds(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    seconds = config.duration("timeout", timeout)
    if not seconds > 0:
        raise ValueError(f"timeout: expected seconds above 0, or None, got {timeout!r}")
    return seconds

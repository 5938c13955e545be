"""`parallel_apply` and `plan`: the front door.

The file is long because its functions are documented for users.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, Never, NoReturn

from shmcompute import config
from shmcompute.arrays import SharedArray
from shmcompute.calls import (
    Outputs,
    Workers,
    await_turn,
    call,
    extent_of,
    over_range,
    pool_for,
    run,
    run_debugged,
    submit,
)
from shmcompute.chunking import Chunk, Chunks, Grid, UnlentError, Values, is_number
from shmcompute.default_pools import default_pool
from shmcompute.plans import (
    Calls,
    Options,
    Plan,
    arrays_of,
    build_plan,
    calls_of,
    cut_range,
    draws,
)
from shmcompute.pool import Pool
from shmcompute.progress import Asked, asked_for
from shmcompute.system import context
from shmcompute.system.tracebacks import shorten
from shmcompute.typing import BackendName, ScheduleName

if TYPE_CHECKING:  # imported by who asks for it
    from shmcompute.diagnostics import Explanation
    from shmcompute.tuning import Decision


class BoundPlan:
    """A call that is bound once and can be run again and again; see `plan`."""

    def __init__(
        self,
        plan: Plan,
        pool: Pool,
        arrays: Sequence[SharedArray],
        timeout: float | None,
        options: Options,
        progress: Asked = None,
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._arrays = arrays
        self._timeout = timeout
        self._options = options
        self._types = tuple(map(type, plan.values))
        self._progress = progress
        # That of the latest other range: it knows where its arrays are, and so do copies of it.
        self._ranged = plan
        # Whether there is a chunk for each worker.
        self._one_each = options == (*Options(extent=options.extent),) and not draws(plan.links)

    @property
    def chunks(self) -> tuple[tuple[Any, Any], ...]:
        """The ranges ``[start, stop)`` along the split axis that the kernel is called with.

        Along two axes start and stop are pairs, and the blocks are in the order of a matrix.
        """
        chunks = self._plan.chunks
        return tuple(chunks.by_number() if isinstance(chunks, Grid) else chunks)

    def __call__(self, *changed: Any) -> Outputs:
        """Run it. Returns when no worker writes any more, what `per_chunk` has asked for.

        Parameters
        ----------
        *changed : range, number
            What this run has in place of the plan's range, if it has one, and then of all the
            numbers among its arguments, in their order and of their types. By default the plan's.

        Raises
        ------
        TypeError
            For other numbers than the plan has.
        ClosedError
            If one of its arrays was closed.
        """
        for array in self._arrays:
            array.array  # noqa: B018  # raises ClosedError
        pool = default_pool("serial") if context.inside_kernel() else self._pool
        run_it = run_debugged if self._plan.debug else run
        try:
            plan, values = self._changed(changed) if changed else (self._plan, self._plan.values)
            return run_it(plan, values, pool, self._timeout, self._progress)
        except BaseException as error:
            shorten(error)
            raise

    def submit(self, *changed: Any) -> Future[Outputs]:
        """Have it run without waiting for it: after all calls of its pool that were made before.

        Calls of a pool are run in the order in which they are submitted, and a call that is not, by
        whichever thread, waits for those that were submitted before it. So what reads the arrays by
        other ways (NumPy, another pool, a task) is to wait for the future first.

        Parameters
        ----------
        *changed : range, number
            As for the call itself.

        Returns
        -------
        concurrent.futures.Future
            Of what the call would return, or raise. It can be cancelled until the call begins; the
            plan's timeout counts from then. Awaitable by `asyncio.wrap_future`. A pool whose calls
            are run by the caller itself (``backend="serial"``, or within a kernel or task) has run
            it already.

        Raises
        ------
        TypeError
            For other numbers than the plan has.
        ClosedError, ForkedPoolError
            If the pool is closed, or another process's.

        Examples
        --------
        >>> import numpy as np, shmcompute as sc
        >>> with sc.SharedArray(np.zeros(3)) as arr:
        ...     step = sc.plan(np.add, arr, 1.0, backend="threads")
        ...     futures = [step.submit() for _ in range(4)]
        ...     futures[-1].result()
        ...     print(arr.array)
        [4. 4. 4.]
        """
        return submit(self._later(changed), self._pool)

    def _later(self, changed: tuple[Any, ...]) -> Callable[[Workers], Outputs]:
        """What runs it, given the workers."""
        plan, values = self._changed(changed) if changed else (self._plan, self._plan.values)
        return partial(self._run_later, plan, values)

    def _run_later(self, plan: Plan, values: Values, pool: Workers) -> Outputs:
        for array in self._arrays:
            array.array  # noqa: B018  # raises ClosedError
        run_it = run_debugged if plan.debug else run
        return run_it(plan, values, pool, self._timeout, self._progress)

    def _changed(self, changed: tuple[Any, ...]) -> tuple[Plan, Values]:
        """The plan of another range, and the numbers to run it with."""
        plan, values = self._plan, changed
        if type(changed[0]) is range and self._options.extent is not None:
            plan = self._plan.ranges.get(changed[0]) or self._over(changed[0])
            if len(changed) == 1:
                return plan, plan.values
            values = changed[1:]
        if tuple(map(type, values)) != self._types or not all(map(is_number, values)):
            self._refuse(values)
        return plan, values

    def _over(self, numbers: range) -> Plan:
        """The plan of another range."""
        self._ranged = self._ranged.over(self._cut(numbers))
        return self._plan.keep(numbers, self._ranged)

    def _cut(self, numbers: range) -> Sequence[Chunk]:
        if self._one_each and numbers.step == 1:  # a third of the time of what follows
            length = max(0, numbers.stop - numbers.start)
            return Chunks(numbers.start, length, min(self._pool.workers, length), 0)
        if self._options.retries or self._options.schedule == "guided":
            raise ValueError(
                f"{self!r}: a plan with retries or schedule='guided' has one range; make another "
                f"for {numbers!r}, or call sc.parallel_for"
            )
        extent = extent_of(numbers)
        return cut_range(self._plan.links, self._options, extent, self._pool.workers)

    def _refuse(self, values: tuple[Any, ...]) -> NoReturn:
        types = [kind.__name__ for kind in self._types]
        came = [type(value).__name__ for value in values]
        head = "a range and " if self._options.extent is not None else ""
        raise TypeError(
            f"{self!r}: expected {head}these numbers, as it was made with: ({', '.join(types)}); "
            f"got ({', '.join(came)}). For other arguments make another plan"
        )

    def explain(self) -> Explanation:
        """Say how it is run, and why so; see `shmcompute.explain`."""
        from shmcompute.diagnostics import explain_plan  # noqa: PLC0415  # for few programs

        return explain_plan(self._plan, self._options, self._pool, self._timeout)

    def __repr__(self) -> str:
        return f"<plan of {self._plan.name}: {len(self.chunks)} chunks on {self._pool!r}>"


def _about(changed: tuple[Any, ...]) -> int | None:
    """About how long the range is that a run is given."""
    return len(changed[0]).bit_length() if changed and type(changed[0]) is range else None


class TunedPlan(BoundPlan):
    """One whose backend is chosen at each run, by what runs like it have taken."""

    def __init__(self, calls: Calls, options: Options, pool: Pool, progress: Asked = None) -> None:
        from shmcompute import tuned, tuning  # noqa: PLC0415  # for backend="auto" only

        self._calls = calls
        self._auto = pool
        self._tuned, self._note = tuned, tuning.Decision
        self._plans: dict[str, BoundPlan] = {}
        self._notes: dict[int | None, Decision] = {}  # by about how long the range of a run is
        record = tuned.record_of(pool, calls, options)
        first = pool.candidate(record.choose(pool.starts()).backend)
        built = build_plan(calls, options, first.running)
        super().__init__(built, first, arrays_of(calls).shared, None, options, progress)

    def __call__(self, *changed: Any) -> Outputs:
        """Run it; see `BoundPlan`."""
        if self._auto.submitted.busy:
            await_turn(self._auto, None)
        about = _about(changed)
        note = self._notes.get(about)
        if note is not None and note.left > 0:
            note.left -= 1
            outputs: Outputs = self._plans[note.pool.backend](*changed)
            return outputs
        if context.inside_kernel():
            return super().__call__(*changed)
        return self._run_measured(changed, about)

    def submit(self, *changed: Any) -> Future[Outputs]:
        """Have it run where such a run was quickest; see `BoundPlan`."""
        note = self._notes.get(_about(changed))
        bound = self._plan_on(self._pool if note is None else note.pool)
        return submit(bound._later(changed), bound._pool, self._auto)

    def _run_measured(self, changed: tuple[Any, ...], about: int | None) -> Outputs:
        options = self._options
        if about is not None and options.extent is not None:
            options = options._replace(extent=extent_of(changed[0]))
        record = self._tuned.record_of(self._auto, self._calls, options)
        result, pool, left = self._tuned.run_tuned(
            self._auto, record, lambda pool: partial(self._plan_on(pool), *changed)
        )
        self._notes[about] = self._note(pool, left)
        self._plan, self._pool = self._plan_on(pool)._plan, pool  # for who looks at them
        return result

    def _plan_on(self, pool: Pool) -> BoundPlan:
        if pool.backend not in self._plans:
            built = build_plan(self._calls, self._options, pool.running)
            bound = BoundPlan(built, pool, self._arrays, None, self._options, self._progress)
            self._plans[pool.backend] = bound
        return self._plans[pool.backend]


def plan(
    kernel: Any,
    *args: Any,
    axis: int | tuple[int, int] = 0,
    chunksize: int | tuple[int, int] | None = None,
    schedule: ScheduleName = "static",
    pool: Pool | None = None,
    backend: BackendName | None = None,
    timeout: float | None = None,
    retries: int = 0,
    debug: bool | None = None,
    progress: Asked = None,
    **unknown: Never,
) -> BoundPlan:
    """Bind a call once; calling the result runs it, as often as you like.

    Takes what `parallel_apply` takes, and checks and compiles all of it now. To worker processes it
    sends what is not shared (a Python function with its globals, a plain array in `whole`) at its
    first run; what changes of that later they do not see.

    Where the first argument is a `range` and no array is split, it is a plan of `parallel_for`. A
    run may have another range, and other numbers among its arguments: ``step(range(3, 9), 0.5)``.

    Parameters
    ----------
    kernel, *args, axis, chunksize, schedule, pool, backend, timeout, retries, debug, progress
        As for `parallel_apply`.
    **unknown
        As for `parallel_apply`.

    Returns
    -------
    BoundPlan
        Calling it runs the call, and returns what `parallel_apply` returns. Its ``chunks`` are the
        ranges ``(start, stop)`` that the kernel is called with.

    Raises
    ------
    Exception
        What `parallel_apply` raises before anything runs, now; the rest when it is called.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.SharedArray(np.zeros(5)) as arr:
    ...     step = sc.plan(np.add, arr, 1.0)
    ...     for _ in range(3):
    ...         step()
    ...     print(arr.array)
    [3. 3. 3. 3. 3.]

    One plan for all diagonals of a table:

    >>> def diagonal(first, last, table, d):
    ...     for i in range(first, last):
    ...         table[i, d - i] = d
    >>> with sc.SharedArray.zeros((3, 3), int) as table:
    ...     step = sc.plan(diagonal, range(1), sc.shared(table), 0)
    ...     for d in range(3):
    ...         step(range(d + 1), d)
    ...     print(table.array)
    [[0 1 2]
     [1 2 0]
     [2 0 0]]
    """
    if unknown:
        config.refuse_unknown("plan", unknown)
    seconds, chosen = config.timeout(timeout), pool_for(pool, backend)
    guarded = chosen.debug if debug is None else bool(debug)
    options = Options(axis, chunksize, schedule, retries, guarded)
    if progress is not None:
        progress = asked_for(progress)
        options = options._replace(fine=progress is not None)
    calls, options = over_range(calls_of(kernel, args), options)
    if chosen.records is not None:
        from shmcompute.tuned import only_pool  # noqa: PLC0415  # for backend="auto" only

        if (only := only_pool(chosen, options, seconds)) is None:
            return TunedPlan(calls, options, chosen, progress)
        chosen = only
    built = build_plan(calls, options, chosen.running)
    return BoundPlan(built, chosen, arrays_of(calls).shared, seconds, options, progress)


def parallel_apply(
    kernel: Any,
    *args: Any,
    axis: int | tuple[int, int] = 0,
    chunksize: int | tuple[int, int] | None = None,
    schedule: ScheduleName = "static",
    pool: Pool | None = None,
    backend: BackendName | None = None,
    timeout: float | None = None,
    retries: int = 0,
    debug: bool | None = None,
    progress: Asked = None,
    **unknown: Never,
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
        its own in place of those of the call. Where a link sees what another one writes in
        neighbouring chunks (`halo`, or a view that is shifted along the axis), jitted links go one
        behind the other by as many indices as they see, with ``schedule="static"`` and without
        ``debug``; others go over all chunks one after another. The result is that of a call for
        each link, bit for bit.
    *args
        What it is called with. A `SharedArray`, or an ndarray view of one, is split along `axis`;
        see `split`, `read`, `write`, `halo`, `whole`, `shared`, `offset`, `chunk`, `scratch` and
        `per_chunk`. All else is passed as it is.
    axis : int, or pair of int
        Axis along which arguments are split, unless they name their own. Along two axes,
        ``(0, 1)``, chunks are blocks. A marker's `axis` is then a pair as well: which axes of its
        array are the call's first and second, None for one along which each block sees all of it.
        `offset` is a pair (row, column); `chunk` numbers blocks row by row.
    chunksize : int, or pair of int, optional
        Elements along the axis that one call of the kernel gets. In a chain, by default, as many
        as stay in a core's second-level cache; with `retries`, about as many as stay in its caches.
        Along two axes ``(rows, columns)``; an int is for both. By default blocks are nearly square
        and stay in half of that cache.
    schedule : {'static', 'dynamic', 'guided'}
        Who takes which chunk, as in OpenMP: dealt round in advance, or the next free worker takes
        the next one, of constant or of falling size. Blocks are dealt so that each worker goes
        along a row of them, the workers side by side.
    pool : Pool, optional
        Whose workers; by default a common pool, made at first use.
    backend : {'processes', 'threads', 'serial', 'auto'}, optional
        The common pool of that kind; with ``'auto'`` the one of these that is the quickest, as
        calls like it tell (see docs/backends.md). By default ``SHMCOMPUTE_BACKEND``, else
        processes.
    timeout : float, optional
        Seconds. Worker processes that overrun are killed and replaced; threads can't be.
    retries : int
        How often chunks that a worker left when it died are run again, by others, within this call.
        What a chunk is about to write is copied first, and put back before it is run again: each
        chunk is done exactly once. After any failure, chunks that were not done read as before.
        Refused is a kernel that brings a shared array along, in a partial, a closure or a
        container, to be written by all chunks, and a chain of which a link sees what another one
        writes in neighbouring chunks.
    debug : bool, optional
        Whether to look for what a wrong kernel does beside its work, slowly. Each chunk is run on
        copies between guard zones, and written back if all went well: else it reads as before.
        Each worker takes some three times the memory that its chunk reaches over. Numba's kernels
        are compiled with ``boundscheck``. Where a kernel brings arrays along that all chunks see,
        chunks run one after another, and what each has changed there is looked at. By default
        ``SHMCOMPUTE_DEBUG``, as it was when the pool was made.
    progress : bool, str or callable, optional
        Shows how many chunks are done, as the caller sees it while it waits or between chunks of
        its own. ``True``: a bar by tqdm in a terminal or notebook; a line on stderr now and then
        elsewhere, or without tqdm (the extra ``progress``). A string: the same, with this
        description. A callable is called with ``(done, total)``, first of all with 0, in the
        calling thread; what it raises ends the call, when no worker writes any more. Without a
        `chunksize`, each worker gets up to 64 chunks then, to be seen on their way, unless
        arguments tell chunks apart (`chunk`, `per_chunk`).
    **unknown
        There are no others; what other libraries call these is refused with the name here.

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
        With the chunks that are undefined; no worker writes any more. Of a chain of which links see
        neighbouring chunks all is.
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

    A matrix product, block by block:

    >>> def multiply(c, a, b):
    ...     c[...] = a @ b
    >>> with sc.SharedArray(np.eye(4)) as a, sc.SharedArray.zeros((4, 6)) as c:
    ...     b = sc.SharedArray(np.arange(24.0).reshape(4, 6))
    ...     rows, columns = sc.read(a, axis=(0, None)), sc.read(b, axis=(None, 1))
    ...     sc.parallel_apply(multiply, c, rows, columns, axis=(0, 1), chunksize=(2, 3))
    ...     print(np.array_equal(c, b))
    True

    A chain, whose second link has an argument of its own:

    >>> with sc.SharedArray(np.arange(4.0)) as arr:
    ...     sc.parallel_apply([np.negative, (scale, arr, 3), np.square], arr)
    ...     print(arr.array)
    [ 0.  9. 36. 81.]

    One whose second link sees neighbours in what the first writes:

    >>> def spread(new, old):
    ...     new[:] = old[:-2] + old[2:]
    >>> with sc.SharedArray(np.arange(5.0)) as x, sc.SharedArray.zeros(5) as y:
    ...     sc.parallel_apply([(spread, y[1:-1], sc.halo(x, 1)), (spread, x[1:-1], sc.halo(y, 1))])
    ...     print(y.array, x.array)
    [0. 2. 4. 6. 0.] [0. 4. 8. 4. 4.]

    With an eye on how far it is:

    >>> with sc.SharedArray(np.arange(4.0)) as arr:
    ...     sc.parallel_apply(np.negative, arr, chunksize=2, backend="serial", progress=print)
    0 2
    1 2
    2 2
    """
    if unknown:
        config.refuse_unknown("parallel_apply", unknown)
    chosen = pool_for(pool, backend)
    guarded = chosen.debug if debug is None else bool(debug)
    options = Options(axis, chunksize, schedule, retries, guarded)
    if progress is not None:
        progress = asked_for(progress)
        options = options._replace(fine=progress is not None)
    try:
        return call(kernel, args, options, chosen, timeout, None, progress)
    except UnlentError as error:
        if _elsewhere is not None and _elsewhere(kernel, args, options, chosen, timeout, progress):
            return None
        shorten(error)
        raise
    except BaseException as error:
        shorten(error)
        raise


# Runs a call on arrays that are no memory, and answers whether it did; see `chunked`.
_elsewhere: Callable[..., bool] | None = None


def provide_elsewhere(run: Callable[..., bool]) -> None:
    """Have this function asked where arguments have no memory that chunks could work on."""
    global _elsewhere
    _elsewhere = run

"""`parallel_apply` and `plan`: the front door."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute import config, cores
from shmcompute.access import Read, Split, Whole, bind, offset
from shmcompute.arguments import VALUES, bytes_of, is_number
from shmcompute.array import SharedArray
from shmcompute.backends.base import Backend
from shmcompute.hints import run_watched, warn_of_races
from shmcompute.kernel import kernel as made_kernel
from shmcompute.overlap import check_chain
from shmcompute.partition import Chunk, chunks
from shmcompute.plan import Link, Plan, inside_kernel
from shmcompute.pool import Pool, default_pool
from shmcompute.recent import goes_by_name

MARKERS = (Split, Read, Whole)


class BoundPlan:
    """A call that is bound once and can be run again and again; see `plan`."""

    def __init__(
        self, plan: Plan, pool: Pool, arrays: tuple[SharedArray, ...], seconds: float | None
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._arrays = arrays
        self._seconds = seconds
        self._values = plan.values

    @property
    def chunks(self) -> tuple[tuple[int, int], ...]:
        """The ranges ``[start, stop)`` along the split axis that the kernel is called with."""
        return self._plan.chunks

    def __call__(self) -> None:
        """Run it. Returns when no worker writes any more."""
        for array in self._arrays:
            array.array  # noqa: B018  # raises ClosedError
        if self._plan.chunks:
            pool = default_pool("serial") if inside_kernel() else self._pool
            pool.running.run(self._plan, self._values, self._seconds)

    def __repr__(self) -> str:
        return f"<plan of {self._plan.name}: {len(self.chunks)} chunks on {self._pool!r}>"


class DebugPlan(BoundPlan):
    """The same under ``debug=True``."""

    def __call__(self) -> None:
        run_watched(super().__call__, self._plan)


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
    seconds = _seconds(timeout)
    again, chosen = config.count("retries", retries, 0), _pool(pool, backend)
    guarded = chosen.debug if debug is None else bool(debug)
    return _plan(kernel, args, chosen, axis, chunksize, schedule, seconds, again, guarded)


def _plan(
    kernel: Any,
    args: tuple[Any, ...],
    pool: Pool,
    axis: int,
    chunksize: int | None,
    schedule: str,
    seconds: float | None,
    retries: int,
    debug: bool,
) -> BoundPlan:
    calls = _calls(kernel, args)
    links = _links(calls, axis, pool.running, debug)
    cut = _cut(links, pool.workers, schedule, chunksize, _room(links, retries))
    for link in links:
        link.kernel.check(link.arguments, cut)
    arrays = tuple(array for _, *own in calls for arg in own if (array := _shared(arg)) is not None)
    made = Plan(links, cut, schedule == "static", retries, debug=debug)
    if debug:
        warn_of_races(made)
    return (DebugPlan if debug else BoundPlan)(made, pool, arrays, seconds)


def _calls(kernel: Any, args: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The kernel, or each of a chain, with its arguments: its own, where it comes with them."""
    if not isinstance(kernel, list):
        return [(kernel, *args)]
    if not kernel:
        raise ValueError("kernel: expected at least one kernel in the chain, got []")
    return [link if isinstance(link, tuple) and link else (link, *args) for link in kernel]


def _links(
    calls: list[tuple[Any, ...]], axis: int, running: Backend, debug: bool
) -> tuple[Link, ...]:
    links: list[Link] = []
    for function, *args in calls:
        before = links[-1].arguments.values if links else ()
        arguments = bind(args, axis, shared=running.shared, before=before)
        made = made_kernel(function, arguments)
        made = made.bounded() if debug else made
        links.append(Link(made.threaded() if running.threaded else made, arguments))
    check_chain([link.arguments for link in links])
    return tuple(links)


def _room(links: tuple[Link, ...], retries: int) -> int | None:
    """Bytes of a chunk by default: few enough to stay in a core's cache; None: any.

    In a chain from the first kernel to the last. With retries from the copy to the kernel, which
    a cache that cores share does as well, and each takes Python some steps: twice as many.
    """
    if len(links) > 1:
        return cores.cache() // 2
    return 2 * cores.cache() if retries else None


def _cut(
    links: tuple[Link, ...],
    workers: int,
    schedule: str,
    chunksize: int | None,
    room: int | None,
) -> tuple[Chunk, ...]:
    length = links[0].arguments.length
    if room is not None and chunksize is None and schedule != "guided":
        size = bytes_of([link.arguments for link in links])
        chunksize = max(1, min(room * length // max(1, size), -(-length // workers)))
    return chunks(length, workers, schedule, chunksize)


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
) -> None:
    """Run `kernel` on every chunk of the arrays, in place, on every core.

    Parameters
    ----------
    kernel : callable, or list of them
        A Numba dispatcher, a NumPy or Numba ufunc (called with ``out=`` the first split argument),
        or any Python callable. It writes in place and returns nothing. It may come from anywhere,
        and no ``__main__`` guard is needed. A list is a chain: each chunk goes through all of its
        kernels before the next, so memory is crossed once. A link of a chain may also be a tuple
        ``(kernel, *args)``, with arguments of its own in place of those of the call.
    *args
        What it is called with. A `SharedArray`, or an ndarray view of one, is split along `axis`;
        see `split`, `read`, `whole` and `offset`. All else is passed as it is.
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
    debug : bool, optional
        Whether to look for what a wrong kernel does beside its work, slowly. Each chunk is run on
        copies between guard zones, and written back if all went well: else it reads as before.
        Each worker takes some three times the memory that its chunk reaches over. Numba's kernels
        are compiled with ``boundscheck``. By default ``SHMCOMPUTE_DEBUG``, as it was when the pool
        was made.

    Raises
    ------
    TypeError, ValueError
        For arguments that can't be split, before anything runs.
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
        Under ``debug``, of a kernel that changed nothing, or that sees what other chunks write.
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
    chosen, seconds = _pool(pool, backend), _seconds(timeout)
    again = config.count("retries", retries, 0)
    if debug or (debug is None and chosen.debug):
        bound = _plan(kernel, args, chosen, axis, chunksize, schedule, seconds, again, True)
        run_watched(partial(BoundPlan.__call__, bound), bound._plan)
        return
    key = _key(kernel, args, axis, chunksize, schedule, again)
    values = tuple(filter(is_number, args))
    known = chosen.recent.find(key)
    if known is not None:
        if known.chunks:
            chosen.running.run(known, values, seconds)
        return
    bound = _plan(kernel, args, chosen, axis, chunksize, schedule, seconds, again, False)
    chosen.recent.keep(key, bound._plan, bound._arrays)
    bound()


def _key(kernel: Any, args: tuple[Any, ...], *options: Any) -> Hashable | None:
    """What makes calls alike but for the values of numbers; None for a call like no other.

    Python functions that go to workers by value change with their globals and closures, plain
    arrays with their content.
    """
    if not isinstance(kernel, (Dispatcher, np.ufunc)) and not goes_by_name(kernel):
        return None
    if sum(map(is_number, args)) > VALUES:
        return None
    parts: list[Hashable] = [kernel, *options, *map(type, options)]
    for arg in args:
        kind: Any = type(arg)
        if kind is SharedArray or arg is offset:
            parts.append(id(arg))
        elif is_number(arg):
            parts.append(kind)
        elif kind in MARKERS and type(arg.value) is SharedArray:
            parts.append((kind, id(arg.value), getattr(arg, "axis", None)))
        else:
            return None
    return tuple(parts)


def _pool(pool: Pool | None, backend: str | None) -> Pool:
    if pool is not None and not isinstance(pool, Pool):
        raise TypeError(f"pool: expected a shmcompute.Pool, got {type(pool).__name__}")
    if pool is not None and backend is not None and backend != pool.backend:
        raise ValueError(f"backend={backend!r}, but the pool's is {pool.backend!r}; give one")
    if backend is not None:
        config.one_of("backend", backend, config.BACKENDS)
    if inside_kernel():  # it would wait for workers that wait for it, so it runs it itself
        return default_pool("serial")
    return default_pool(backend) if pool is None else pool


def _shared(arg: Any) -> SharedArray | None:
    value = arg.value if isinstance(arg, MARKERS) else arg
    return value if isinstance(value, SharedArray) else None


def _seconds(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    seconds = config.duration("timeout", timeout)
    if not seconds > 0:
        raise ValueError(f"timeout: expected seconds above 0, or None, got {timeout!r}")
    return seconds

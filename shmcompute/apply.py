"""`parallel_apply` and `plan`: the front door."""

from __future__ import annotations

from typing import Any

import numpy as np

from shmcompute import config
from shmcompute.access import Read, Split, Whole, bind
from shmcompute.array import SharedArray
from shmcompute.kernel import kernel as made_kernel
from shmcompute.partition import chunks
from shmcompute.plan import Plan, inside_kernel
from shmcompute.pool import Pool, default_pool

LONGEST = 1e6  # seconds that a timeout may be: twelve days; more overflows what the system takes


class BoundPlan:
    """A call that is bound once and can be run again and again; see `plan`."""

    def __init__(
        self, plan: Plan, pool: Pool, arrays: tuple[SharedArray, ...], timeout: float | None
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._arrays = arrays
        self._timeout = timeout

    @property
    def chunks(self) -> tuple[tuple[int, int], ...]:
        """The ranges ``[start, stop)`` along the split axis that the kernel is called with."""
        return self._plan.chunks

    def __call__(self) -> None:
        """Run it. Returns when no worker writes any more."""
        for array in self._arrays:
            array.array  # noqa: B018  # raises ClosedError
        if self._plan.chunks:
            pool = default_pool("serial") if _nested() else self._pool
            pool.run(self._plan, self._timeout)

    def __repr__(self) -> str:
        return f"<plan of {self._plan.kernel.name}: {len(self.chunks)} chunks on {self._pool!r}>"


def plan(
    kernel: Any,
    *args: Any,
    axis: int = 0,
    chunksize: int | None = None,
    schedule: str = "static",
    pool: Pool | None = None,
    backend: str | None = None,
    timeout: float | None = None,
) -> BoundPlan:
    """Bind a call once; calling the result runs it, as often as you like.

    Takes what `parallel_apply` takes, and checks and compiles all of it now.

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
    pool = _pool(pool, backend)
    running = pool.running
    arguments = bind(args, axis, shared=running.shared)
    made = made_kernel(kernel, arguments)
    cut = chunks(arguments.length, running.workers, schedule, chunksize)
    made.check(arguments, cut)
    arrays = tuple(array for arg in args if (array := _shared(arg)) is not None)
    static = schedule == "static"
    return BoundPlan(Plan(made, arguments, cut, static), pool, arrays, _seconds(timeout))


def parallel_apply(
    kernel: Any,
    *args: Any,
    axis: int = 0,
    chunksize: int | None = None,
    schedule: str = "static",
    pool: Pool | None = None,
    backend: str | None = None,
    timeout: float | None = None,
) -> None:
    """Run `kernel` on every chunk of the arrays, in place, on every core.

    Parameters
    ----------
    kernel : callable
        A Numba dispatcher, a NumPy or Numba ufunc (called with ``out=`` the first split argument),
        or any Python callable. It writes in place and returns nothing. It may come from anywhere,
        and no ``__main__`` guard is needed.
    *args
        What it is called with. A `SharedArray`, or an ndarray view of one, is split along `axis`;
        see `split`, `read`, `whole` and `offset`. All else is passed as it is.
    axis : int
        Axis along which arguments are split, unless they name their own.
    chunksize : int, optional
        Elements along the axis that one call of the kernel gets.
    schedule : {'static', 'dynamic', 'guided'}
        Who takes which chunk, as in OpenMP: dealt round in advance, or the next free worker takes
        the next one, of constant or of falling size.
    pool : Pool, optional
        Whose workers; by default a common pool, made at first use.
    backend : {'processes', 'threads', 'serial'}, optional
        The common pool of that kind. By default ``SHMCOMPUTE_BACKEND``, else processes.
    timeout : float, optional
        Seconds. Worker processes that overrun are killed and replaced; threads can't be.

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
    """
    plan(
        kernel,
        *args,
        axis=axis,
        chunksize=chunksize,
        schedule=schedule,
        pool=pool,
        backend=backend,
        timeout=timeout,
    )()


def _pool(pool: Pool | None, backend: str | None) -> Pool:
    if pool is not None and not isinstance(pool, Pool):
        raise TypeError(f"pool: expected a shmcompute.Pool, got {type(pool).__name__}")
    if pool is not None and backend is not None and backend != pool.backend:
        raise ValueError(f"backend={backend!r}, but the pool's is {pool.backend!r}; give one")
    if backend is not None:
        config.one_of("backend", backend, config.BACKENDS)
    if _nested():
        return default_pool("serial")
    return default_pool(backend) if pool is None else pool


def _nested() -> bool:
    """Whether a kernel asks: it would wait for workers that wait for it, so it runs it itself."""
    return config.in_worker or inside_kernel()


def _shared(arg: Any) -> SharedArray | None:
    value = arg.value if isinstance(arg, (Split, Read, Whole)) else arg
    return value if isinstance(value, SharedArray) else None


def _seconds(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float, np.number)):
        raise TypeError(f"timeout: expected seconds or None, got {timeout!r}")
    if not timeout > 0:
        raise ValueError(f"timeout: expected seconds above 0, or None, got {timeout!r}")
    return min(float(timeout), LONGEST)

"""`parallel_for`: a kernel over a range of numbers."""

from __future__ import annotations

import operator
from typing import Any, Never

from shmcompute import config
from shmcompute.calls import Outputs, call, pool_for
from shmcompute.chunking import range_start, range_stop
from shmcompute.plans import Options
from shmcompute.pool import Pool
from shmcompute.progress import Asked, asked_for
from shmcompute.system.tracebacks import shorten
from shmcompute.typing import BackendName, ScheduleName


def parallel_for(
    kernel: Any,
    start: int,
    stop: int,
    *args: Any,
    chunksize: int | None = None,
    schedule: ScheduleName = "static",
    pool: Pool | None = None,
    backend: BackendName | None = None,
    timeout: float | None = None,
    retries: int = 0,
    debug: bool | None = None,
    progress: Asked = None,
    **unknown: Never,
) -> Outputs:
    """Run ``kernel(first, last, *args)`` for parts ``[first, last)`` of ``[start, stop)``.

    It is `parallel_apply` over a range of numbers instead of an array's axis: nothing is split.

    Parameters
    ----------
    kernel : callable, or list of them
        As for `parallel_apply`, but that two numbers come first: where its part of the range
        starts, and the number behind its last.
    start, stop : int
        The range. As for `range`, there is nothing to do where `stop` is not above `start`.
    *args
        Arrays are passed in `whole`, to be read, or in `shared`, to be written; `chunk`, `scratch`,
        `per_chunk` and all else as for `parallel_apply`.
    chunksize, schedule, pool, backend, timeout, retries, debug, progress
        As for `parallel_apply`.
    **unknown
        As for `parallel_apply`.

    Returns
    -------
    SharedArray, tuple of them, or None
        The outputs of each chunk, where arguments ask for them: see `per_chunk`.

    Raises
    ------
    TypeError
        For a range that is not of whole numbers, and for an array that would be split.
    Exception
        As `parallel_apply`.

    Examples
    --------
    >>> import numpy as np, numba as nb, shmcompute as sc
    >>> @nb.njit
    ... def diagonal(first, last, table, d):
    ...     for i in range(first, last):
    ...         table[i, d - i] = i
    >>> with sc.SharedArray.zeros((3, 3), int) as table:
    ...     for d in range(3):
    ...         sc.parallel_for(diagonal, 0, d + 1, sc.shared(table), d)
    ...     print(table.array)
    [[0 0 0]
     [1 1 0]
     [2 0 0]]
    """
    if unknown:
        config.refuse_unknown("parallel_for", unknown)
    extent = start, stop
    if not type(start) is type(stop) is int:
        extent = _whole("start", start), _whole("stop", stop)
    chosen = pool_for(pool, backend)
    guarded = chosen.debug if debug is None else bool(debug)
    options = Options(0, chunksize, schedule, retries, guarded)
    if progress is not None:
        progress = asked_for(progress)
        options = options._replace(fine=progress is not None)
    given = (range_start, range_stop, *args)
    try:
        return call(kernel, given, options, chosen, timeout, extent, progress)
    except BaseException as error:
        shorten(error)
        raise


def _whole(name: str, number: int) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{name}: expected a whole number, got {number!r}") from None

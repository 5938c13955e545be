"""`parallel_iterate`: a call that is repeated, sweep after sweep."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import closing
from functools import partial
from typing import Any, Never, TypeVar

import numpy as np

from shmcompute import config
from shmcompute.arrays import SharedArray
from shmcompute.calls import await_turn, over_range, pool_for
from shmcompute.iterate.call import Call
from shmcompute.iterate.repeat import repeat, repeat_until
from shmcompute.iterate.until import Condition, Measurement, dropping_numbers
from shmcompute.plans import Calls, Options, arrays_of, calls_of
from shmcompute.plans.swapping import Pair, looks_into, swapped
from shmcompute.pool import Pool
from shmcompute.progress import Asked, asked_for
from shmcompute.system.tracebacks import shorten
from shmcompute.typing import Array, BackendName, ScheduleName

T = TypeVar("T")


def parallel_iterate(
    kernel: Any,
    *args: Any,
    times: int,
    swap: tuple[SharedArray, SharedArray] | None = None,
    until: Callable[[Any], Any] | None = None,
    every: int = 1,
    combine: Callable[[Any, Any], Any] = np.maximum,
    axis: int | tuple[int, int] = 0,
    chunksize: int | tuple[int, int] | None = None,
    schedule: ScheduleName = "static",
    pool: Pool | None = None,
    backend: BackendName | None = None,
    timeout: float | None = None,
    debug: bool | None = None,
    progress: Asked = None,
    **unknown: Never,
) -> Any:
    """Repeat a `parallel_apply`, with two arrays that change places after each time.

    The repetitions, the sweeps, are run within the workers where the kernels are jitted. Where each
    chunk sees no more than its own part and its neighbours', they go in blocks of time: a slab
    goes through several sweeps while it is in a core's cache. What comes of it is the same, bit for
    bit, as sweep after sweep, for any number of workers.

    Parameters
    ----------
    kernel : callable, or list of them
        As for `parallel_apply`. A list is a chain: each of its kernels goes over the whole axis
        before the next does, so it may see what others have written anywhere.
    *args
        As for `parallel_apply`. `sweep` becomes the number of the sweep, from 0; `per_chunk` has
        no meaning here. Where the first is a `range` and no array is split, kernels are called
        with parts of that range, as by `parallel_for`: a wavefront is a sweep for each diagonal.
    times : int
        How many sweeps, at most; with 0 nothing is done.
    swap : tuple of two SharedArray, optional
        Arrays of one shape, dtype and memory layout, both among the arguments, or views of them.
        After each sweep each takes the other's place, and so do their views.
    until : callable, optional
        Called with a number after each `every` sweeps: whether to stop. The (last) kernel then
        returns a real number for its chunk. Those of the sweep that was just done are combined.
    every : int
        After how many sweeps `until` is asked.
    combine : callable
        Makes one number of two, such as a ufunc. Chunks are cut by length alone then, and their
        numbers are combined in order, so it is the same for any number of workers.
    axis, pool, backend, debug
        As for `parallel_apply`. Along two axes sweeps return to the caller, one by one.
    chunksize : int, optional
        Elements along the axis that one call of a kernel gets. By default, in blocks of time, as
        many as are quick.
    schedule : {'static', 'dynamic', 'guided'}
        As for `parallel_apply`; others than static return to the caller after each sweep.
    timeout : float, optional
        Seconds for all sweeps.
    progress : bool, str or callable, optional
        As for `parallel_apply`, but that it tells of sweeps: ``(done, times)``. Where `until` ends
        them, less than `times` is done in the end.
    **unknown
        As for `parallel_apply`.

    Returns
    -------
    SharedArray
        The array that was written last. With ``times=0`` and `swap`, the one that would have been
        read. Without `swap`, what the call writes first, as it was passed.

    Raises
    ------
    TypeError, ValueError
        As `parallel_apply`; for `swap` of arrays that differ or are no argument, and for `times`
        that is no whole number or below 0.
    KernelTimeoutError, WorkerLostError
        They say after which sweep; all of what the call writes is undefined then.
    Exception
        As `parallel_apply`.

    Examples
    --------
    >>> import numpy as np, numba as nb, shmcompute as sc
    >>> @nb.njit
    ... def relax(new, old):
    ...     for i in range(new.size):
    ...         new[i] = 0.5 * (old[i] + old[i + 2])
    >>> start = np.array([0.0, 0, 0, 0, 8])
    >>> with sc.SharedArray(start) as old, sc.SharedArray(start) as new:
    ...     last = sc.parallel_iterate(
    ...         relax, new[1:-1], sc.halo(old, 1), times=100, swap=(old, new)
    ...     )
    ...     print(last.array.round(3))
    [0. 2. 4. 6. 8.]

    The diagonals of a table, of which each needs the one before it:

    >>> @nb.njit
    ... def paths(first, last, table, d):
    ...     for i in range(max(first, 1, d - 3), min(last, d)):
    ...         table[i, d - i] = table[i - 1, d - i] + table[i, d - i - 1]
    >>> with sc.SharedArray.full((4, 4), 1) as table:
    ...     rows = range(4)
    ...     last = sc.parallel_iterate(paths, rows, sc.shared(table), sc.sweep, times=7)
    ...     print(table.array)
    [[ 1  1  1  1]
     [ 1  2  3  4]
     [ 1  3  6 10]
     [ 1  4 10 20]]
    """
    if unknown:
        config.refuse_unknown("parallel_iterate", unknown)
    sweeps = config.count("times", times, 0)
    seconds, chosen = config.timeout(timeout), pool_for(pool, backend)
    guarded = chosen.debug if debug is None else bool(debug)
    options = Options(axis, chunksize, schedule, 0, guarded)
    calls, options = over_range(calls_of(kernel, args), options)
    pair = None if swap is None else _checked(swap)
    parities = (calls, calls if pair is None else swapped(calls, pair))
    condition = None if until is None else _condition(until, every, combine)
    asked = None if progress is None else asked_for(progress)

    def on(pool: Pool) -> Callable[[], tuple[Array | None, int]]:
        work = partial(Call, options=options, pool=pool, timeout=seconds, swap=pair or ())
        return partial(_run, parities, work, sweeps, condition, asked)

    try:
        if chosen.records is None:
            written, done = on(chosen)()
        else:
            await_turn(chosen, seconds)
            like = pair is None, condition is None
            written, done = _run_tuned(chosen, calls, options, sweeps, seconds, like, on)
    except BaseException as error:
        shorten(error)
        raise
    return _written_last(written, calls, pair, done)


def _condition(until: Any, every: Any, combine: Any) -> Condition:
    for name, function in (("until", until), ("combine", combine)):
        if not callable(function):
            raise TypeError(f"{name}: expected a callable, got {function!r}")
    return Condition(until, config.count("every", every), combine)


def _run(
    parities: tuple[Calls, Calls],
    call_of: Callable[[tuple[Calls, Calls]], Call],
    times: int,
    condition: Condition | None,
    progress: Asked,
) -> tuple[Array | None, int]:
    """What an even sweep writes first, and how many sweeps were run."""
    if condition is None:
        with closing(call_of(parities)) as call, call.shown(progress, times):
            repeat(call, times)
        return call.written, times
    even, odd = map(dropping_numbers, parities)
    with (
        closing(call_of((even, odd))) as call,
        closing(Measurement(call, parities, condition)) as measurement,
        call.shown(progress, times),
    ):
        return call.written, repeat_until(call, measurement, condition, times)


def _run_tuned(
    pool: Pool,
    calls: Calls,
    options: Options,
    times: int,
    timeout: float | None,
    like: Hashable,
    on: Callable[[Pool], Callable[[], T]],
) -> T:
    """Run it on the backend that suits it."""
    from shmcompute import tuned  # noqa: PLC0415  # for backend="auto" only

    if (only := tuned.only_pool(pool, options, timeout)) is not None:
        return on(only)()
    about = "sweeps", like, times.bit_length()
    record = tuned.record_of(pool, calls, options, *about, times=times)
    if len(calls) > 1:  # the first has run when it shows that the second does not travel
        record.refused["processes"] = "of several kernels each would have to travel by itself"
    return tuned.run_tuned(pool, record, on, whole=True)[0]


def _checked(swap: Any) -> Pair:
    """Two arrays that can change places."""
    if not isinstance(swap, (tuple, list)) or len(swap) != 2:
        raise TypeError(f"swap: expected a pair of SharedArrays, got {swap!r}")
    for array in swap:
        if not isinstance(array, SharedArray):
            raise TypeError(f"swap: expected two SharedArrays, got {type(array).__name__}")
    one, other = swap
    if one is other or looks_into(one.array, other.array):
        raise ValueError("swap: expected two different arrays, got one twice")
    for what in ("shape", "dtype", "strides"):
        mine, its = getattr(one.array, what), getattr(other.array, what)
        if mine != its:
            raise ValueError(
                f"swap: the arrays must be alike, to take each other's place: their {what} is "
                f"{mine} and {its}"
            )
    return one, other


def _written_last(
    written: Array | None, calls: list[tuple[Any, ...]], pair: Pair | None, times: int
) -> Any:
    """The array that the last sweep has written, of those that an even sweep writes first."""
    if written is None:
        return None
    if pair is not None:
        first = next((i for i, one in enumerate(pair) if looks_into(written, one.array)), 0)
        return pair[first if times % 2 else 1 - first]
    found = (one for one in arrays_of(calls).shared if looks_into(written, one.array))
    return next(found, written)

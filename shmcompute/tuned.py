"""How a call is run whose backend is to be chosen: by the quickest of calls like it.

Each call is run once, on one backend, whatever is tried: what is learnt is how long it took.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from shmcompute.errors import KernelSerializationError, ShmComputeError, WorkerLostError
from shmcompute.plans import Calls, Options, bind_links
from shmcompute.pool import Pool
from shmcompute.tuning import Choice, Record, outline, work_of

T = TypeVar("T")
IN_PROCESS = ("serial", "threads")


def only_backend(options: Options, timeout: float | None) -> tuple[str | None, str]:
    """The backend that alone does what a call asks for, and why; (None, "") if all do."""
    if options.retries:
        return "processes", "retries= is for workers that die, and only processes do"
    if timeout is not None:
        return "processes", "timeout= can only stop processes"
    if options.debug:
        return "processes", "debug= is for kernels that may crash, which only processes survive"
    return None, ""


def only_pool(pool: Pool, options: Options, timeout: float | None) -> Pool | None:
    """The pool of the only backend that does what a call asks for; None if all do."""
    backend, _ = only_backend(options, timeout)
    return None if backend is None else pool.candidate(_possible(pool, backend))


def _possible(pool: Pool, backend: str) -> str:
    """The backend, or where a daemonic process starts no workers, threads."""
    return backend if backend in pool.starts() else "threads"


def choice_of(pool: Pool, calls: Calls, options: Options, timeout: float | None = None) -> Choice:
    """The backend that a call would get now, and why. Nothing runs, and nothing changes."""
    if pool.records is None:
        return Choice(pool.backend, "the call or its pool names it", settled=True)
    backend, why = only_backend(options, timeout)
    if backend is not None:
        return Choice(_possible(pool, backend), why, settled=True)
    return record_of(pool, calls, options).choose(pool.starts())


def record_of(
    pool: Pool,
    calls: Calls,
    options: Options,
    *more: Hashable,
    times: int = 1,
    cut_by_length: bool = False,
) -> Record:
    """What is known of such calls.

    Parameters
    ----------
    more : hashable
        What sets them apart from a `parallel_apply`.
    times : int
        How often they go through their bytes.
    cut_by_length : bool
        Whether all backends cut them alike.

    Raises
    ------
    Exception
        As `parallel_apply`, for arguments that don't fit.
    """
    assert pool.records is not None  # noqa: S101  # for the type checker
    make = partial(_new_record, pool, calls, options, times, cut_by_length)
    return pool.records.find((outline(calls, options), *more), make)


def _new_record(
    pool: Pool, calls: Calls, options: Options, times: int, cut_by_length: bool
) -> Record:
    links = bind_links(calls, options, pool.candidate("serial").running)
    work = work_of(links, options, pool.workers)
    numbered = work.numbered and not cut_by_length
    record = Record(work._replace(nbytes=work.nbytes * times, numbered=numbered))
    try:
        bind_links(calls, options, _Elsewhere(pool.workers))
    except (TypeError, ValueError) as error:
        record.refused["processes"] = str(error)
    return record


@dataclass
class _Elsewhere:
    """Workers that see shared arrays only."""

    workers: int
    shared: bool = True
    threaded: bool = False


def run_tuned(
    pool: Pool, record: Record, prepare: Callable[[Pool], Callable[[], T]], *, whole: bool = False
) -> tuple[T, Pool, int]:
    """Run a call on the backend that is chosen for it, and note how long it took.

    Parameters
    ----------
    prepare : callable
        Plans the call for a pool: what runs it. Nothing runs before all is checked.
    whole : bool
        Whether each such call is planned anew, so that planning is a part of its time.

    Returns
    -------
    result
    pool : Pool
        Who ran it.
    unmeasured : int
        How many such calls may now be run by them without being measured.
    """
    while True:
        choice = record.choose(pool.starts())
        began = time.perf_counter()
        try:
            runner = pool.candidate(choice.backend)
            run = prepare(runner)
        except (TypeError, ValueError, ShmComputeError) as error:
            _refuse(record, choice, error)
            continue
        began = began if whole else time.perf_counter()
        try:
            result = run()
        except KernelSerializationError as error:  # nothing has run
            _refuse(record, choice, error)
            continue
        except WorkerLostError as error:
            record.keep_apart(f"such a call has killed its worker ({error})")
            raise
        return result, runner, record.add(choice, time.perf_counter() - began)


def _refuse(record: Record, choice: Choice, error: Exception) -> None:
    """Have such calls run in this process, unless it is there that they don't fit."""
    if choice.backend in IN_PROCESS:
        raise error
    record.refused[choice.backend] = f"it does not fit: {error}"

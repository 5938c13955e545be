"""How fast this host is, in some seconds, beside what is to be expected of one that is well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from time import perf_counter
from typing import Any

import numba
import numpy as np

from shmcompute.arrays import SharedArray
from shmcompute.diagnostics.finding import BROKEN, Finding, judged
from shmcompute.errors import ShmComputeError
from shmcompute.plans import Options, build_plan
from shmcompute.pool import Pool
from shmcompute.system import memory
from shmcompute.typing import Array

# What a machine of two busy cores does in its sleep; past these something is wrong.
START = 10.0  # seconds until workers are ready
DISPATCH = {"processes": 2e-3, "threads": 1e-3}  # seconds of a call of nothing
FIRST_TOUCH = 3.0  # seconds for a GiB of new shared memory
PATIENCE = 60.0  # seconds that workers may take before we give up
MIB = 128  # of the arrays that are streamed through
RUNS, CALLS = 3, 200


@numba.njit(nogil=True)
def _nothing(x: Array) -> None:
    pass


@numba.njit(nogil=True)
def _stream(x: Array) -> None:
    for i in range(x.size):
        x[i] = x[i] * 3.0 + 1.0


def processes() -> Iterator[Finding]:
    """Start of worker processes, dispatch to them, and a stream through memory by them."""
    began = perf_counter()
    pool = Pool(backend="processes")
    try:
        pool.ready(PATIENCE)
        yield _start(perf_counter() - began, pool.workers)
        yield _dispatch(pool)
        yield from _streaming(pool)
    except (ShmComputeError, OSError) as error:
        remedy = 'backend="threads" does without; see the error, and SHMCOMPUTE_START_METHOD=spawn'
        yield Finding("worker processes", f"do not start or work: {error}", BROKEN, remedy)
        pool.kill_workers()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def threads() -> Iterator[Finding]:
    """Dispatch to threads."""
    with Pool(backend="threads") as pool:
        yield _dispatch(pool.ready(PATIENCE))


def first_touch() -> Iterator[Finding]:
    """What new shared memory costs, by the GiB."""
    size = min(64 << 20, memory.available() // 4)
    began = perf_counter()
    with SharedArray.empty(size, np.uint8) as array:
        array[:] = 1
        taken = (perf_counter() - began) * (1 << 30) / size
    yield judged(
        "new memory",
        f"{taken:.2f} s a GiB (expected: 0.05 to 1)",
        warn=taken > FIRST_TOUCH,
        remedy="memory is short, or the host is swapping: see `memory` above",
    )


def _start(seconds: float, workers: int) -> Finding:
    return judged(
        "start",
        f"{seconds:.2f} s until {workers} worker processes are ready (expected: 0.5 to 3)",
        warn=seconds > START,
        remedy="keep a Pool for all calls; look at `Numba's cache` and `load` above",
    )


def _dispatch(pool: Pool) -> Finding:
    with SharedArray(np.zeros(max(2, pool.workers))) as array:
        seconds = _median(_bound(_nothing, array, pool), CALLS)
    usual = {"processes": "10 to 100", "threads": "4 to 100"}[pool.backend]
    return judged(
        f"dispatch to {pool.backend}",
        f"{seconds * 1e6:.0f} us a call (expected: {usual})",
        warn=seconds > DISPATCH[pool.backend],
        remedy="give each call more to do; look at `cores`, `load` and `futex` above",
    )


def _streaming(pool: Pool) -> Iterator[Finding]:
    size = min(MIB << 17, memory.available() // 64)
    with SharedArray(np.zeros(size)) as array, Pool(1, backend="serial") as one:
        alone = _median(_bound(_stream, array, one), RUNS)
        together = _median(_bound(_stream, array, pool), RUNS)
    ratio, rate = alone / together, 2 * 8 * size / together / 1e9
    yield judged(
        "stream",
        f"{rate:.1f} GB/s by {pool.workers} workers, {ratio:.2f}x one core (expected: 0.9 or more)",
        warn=pool.workers > 1 and ratio < 0.8,
        remedy="others take the cores or the memory's bandwidth: look at `load` and `cores` above",
    )


def _bound(kernel: Any, array: SharedArray, pool: Pool) -> Callable[[], None]:
    """A call that is bound once: what `shmcompute.plan` returns, on a lower floor."""
    built = build_plan([(kernel, array)], Options(), pool.running)
    return partial(pool.running.run, built, built.values, None)


def _median(run: Callable[[], Any], times: int) -> float:
    """Seconds of a run, after one that warms up."""
    run()
    taken = []
    for _ in range(times):
        began = perf_counter()
        run()
        taken.append(perf_counter() - began)
    return median(taken)

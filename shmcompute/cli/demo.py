"""The command `demo`: three kernels on every backend, each result compared with NumPy's."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from time import perf_counter

import numpy as np

from shmcompute import config
from shmcompute.apply import BoundPlan, plan
from shmcompute.arrays import SharedArray
from shmcompute.cli.commands import machine, versions
from shmcompute.cli.demo_kernels import TRIALS
from shmcompute.cli.text import table, write
from shmcompute.default_pools import shutdown
from shmcompute.diagnostics import human
from shmcompute.errors import ShmComputeError
from shmcompute.pool import Pool
from shmcompute.progress import counted
from shmcompute.storage import reaper, shm_space
from shmcompute.system import memory
from shmcompute.typing import Array, BackendName, StartMethodName

LEAST, MOST = 8, 256  # MiB of the largest array by default; storage="array" needs no /dev/shm
COPIES = 4  # input, expected and shared array, and the memory of a comparison
# Serial first: the others are compared with it.
BACKENDS: tuple[BackendName, ...] = ("serial", "threads", "processes")
EXACT = "exact"


@dataclass(frozen=True)
class DemoRow:
    """One kernel on one backend."""

    kernel: str
    backend: str
    array: str
    seconds: float  # the median; not a number if it failed
    checked: str  # EXACT, or what is wrong


def demo(
    size: int | None = None,
    repeat: int = 3,
    workers: int | None = None,
    start_method: StartMethodName | None = None,
) -> int:
    """Run every kernel on every backend, compare, time, and print.

    Parameters
    ----------
    size : int, optional
        MiB of the largest array; by default 256, or less where that does not fit.
    repeat : int
        Timed runs of each kernel on each backend.
    workers, start_method : optional
        As for `Pool`.

    Returns
    -------
    int
        0, or 1 if a result is not exactly NumPy's or a segment was left behind.
    """
    config.count("--repeat", repeat)
    mib = fitting() if size is None else _check_size(size)
    names: list[str] = []
    with ExitStack() as stack:
        pools = [
            stack.enter_context(Pool(workers, backend=backend, start_method=start_method))
            for backend in BACKENDS
        ]
        write(*_preface())
        rows = list(
            counted(_rows(pools, mib, repeat, names), "row", "demo", len(TRIALS) * len(BACKENDS))
        )
        write(*_results(rows), *_footnotes(repeat, pools))
    shutdown()
    wrong = [row for row in rows if row.checked != EXACT]
    for row in wrong:
        sys.stderr.write(f"shmcompute: {row.kernel} on {row.backend}: {row.checked}\n")
    left = len({segment.name for segment in reaper.list_segments()}.intersection(names))
    write(f"segments left: {left}")
    return 1 if wrong or left else 0


def fitting() -> int:
    """MiB of the largest array, that leaves half of /dev/shm, and of memory, free."""
    limit, shm_free = memory.available() // COPIES, shm_space.free_bytes()
    limit = limit if shm_free is None else min(limit, shm_free)
    return max(LEAST, min(MOST, limit // 2 >> 20))


def _check_size(size: int) -> int:
    """`size`, if memory is free for it; if not, the system might kill the process."""
    needed, free = COPIES * config.count("--size", size) << 20, memory.available()
    if needed > free:
        raise ValueError(f"--size {size}: takes {human(needed)} of memory, {human(free)} is free")
    return size


def _rows(pools: Sequence[Pool], mib: int, repeat: int, names: list[str]) -> Iterator[DemoRow]:
    """One measured row after the other; the names of their arrays are appended to `names`."""
    for trial in TRIALS:
        start = trial.start(mib)
        expected = trial.reference(start)
        with SharedArray(start) as x:
            names.append(x.name)
            array = f"{human(x.nbytes)} {x.storage}"
            for pool in pools:
                try:
                    run = plan(trial.kernel, x, pool=pool)
                    result = _measure(run, x, start, expected, repeat)
                except ShmComputeError as error:
                    result = np.nan, f"failed: {error}"
                yield DemoRow(trial.name, pool.backend, array, *result)


def _measure(
    run: BoundPlan, x: SharedArray, start: Array, expected: Array, repeat: int
) -> tuple[float, str]:
    """The median time of a run, and whether each gave exactly what was expected."""
    seconds, exact = [], True
    for _ in range(1 + repeat):  # the first one warms up, and is checked like the others
        x[:] = start
        began = perf_counter()
        run()
        seconds.append(perf_counter() - began)
        exact &= np.array_equal(x.array, expected)
    return median(seconds[1:]), EXACT if exact else "DIFFERS from NumPy"


def _preface() -> list[str]:
    date = ("date", datetime.now().astimezone().isoformat(" ", "seconds"))
    facts = table([*versions(("numpy", "numba")), *machine(), date])
    return [*facts, "", *table([(trial.name, trial.about) for trial in TRIALS]), ""]


def _results(rows: Sequence[DemoRow]) -> list[str]:
    serial = {row.kernel: row.seconds for row in rows if row.backend == "serial"}
    head = ("kernel", "backend", "array", "median", "speed-up", "checked")
    cells = []
    for row in rows:
        times = f"{row.seconds * 1e3:.2f} ms", f"{serial[row.kernel] / row.seconds:.2f}x"
        cells.append((row.kernel, row.backend, row.array, *times, row.checked))
    return table([head, *cells], right=(2, 3, 4))


def _footnotes(repeat: int, pools: Sequence[Pool]) -> list[str]:
    workers = ", ".join(f"{pool.backend} {pool.workers}" for pool in pools)
    return [
        "",
        f"workers: {workers}",
        f"median: of {repeat} after one to warm up; compiling and starting workers is excluded",
        "speed-up: the serial median over this one",
        "exact: after every run numpy.array_equal(result, the same in plain NumPy)",
    ]

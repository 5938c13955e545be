"""The command `bench`: the README's comparison in small, each result compared with NumPy's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter

import numpy as np

from shmcompute import config
from shmcompute.cli.bench_peers import KERNELS, PEERS, REFERENCES, Peer
from shmcompute.cli.commands import machine, versions
from shmcompute.cli.text import table, write
from shmcompute.default_pools import shutdown
from shmcompute.diagnostics import human
from shmcompute.progress import counted
from shmcompute.system import cores, memory
from shmcompute.typing import Array

OURS = "SharedArray"  # what the others are compared with
TINY = 1024  # elements of what is all dispatch
COPIES = 8  # of the array that are in memory at the same time at most
ENOUGH = 0.4  # seconds for the timed runs of one peer and job,
FEWEST, MOST = 3, 100  # of which there are so many


@dataclass(frozen=True)
class BenchJob:
    """A kernel, and the elements that it runs over."""

    name: str
    kernel: str
    data: Array
    expected: Array


@dataclass(frozen=True)
class Time:
    """What a peer took for a job."""

    peer: str
    job: str
    seconds: float  # not a number if it failed
    checked: str  # "exact", or what is wrong


def bench(size: int = 8, workers: int | None = None, *, as_json: bool = False) -> int:
    """Time each way to have several processes work on an array, and print a table of ratios.

    Parameters
    ----------
    size : int
        MiB of the array.
    workers : int, optional
        How many processes; by default the granted cores.

    Returns
    -------
    int
        0, or 1 if a result is not exactly NumPy's.
    """
    jobs = _jobs(_check_size(size))
    count = cores.granted() if workers is None else config.count("workers", workers)
    pairs = [(peer, job) for peer in PEERS for job in jobs]
    _compile(jobs)
    times = [_timed(peer, job, count) for peer, job in counted(pairs, "time", "bench")]
    shutdown()
    if as_json:
        write(json.dumps([asdict(time) for time in times], indent=2).replace("NaN", "null"))
    else:
        write(*_preface(jobs, count), *_results(times, jobs), *_footnotes())
    wrong = [time for time in times if time.checked != "exact"]
    for time in wrong:
        sys.stderr.write(f"shmcompute: {time.peer}, {time.job}: {time.checked}\n")
    return 1 if wrong else 0


def _check_size(size: int) -> int:
    needed, free = COPIES * config.count("--size", size) << 20, memory.available()
    if needed > free:
        raise ValueError(f"--size {size}: takes {human(needed)} of memory, {human(free)} is free")
    return size


def _jobs(mib: int) -> list[BenchJob]:
    """Nothing but dispatch; bound by memory; bound by the cores."""
    return [
        _job("tiny", "stream", np.arange(TINY) % 1000.0),
        _job("stream", "stream", np.arange(mib << 17) % 1000.0),
        _job("compute", "logistic", np.linspace(0.01, 0.99, mib << 14)),
    ]


def _job(name: str, kernel: str, data: Array) -> BenchJob:
    return BenchJob(name, kernel, data, REFERENCES[kernel](data))


def _compile(jobs: list[BenchJob]) -> None:
    """Have the kernels compiled before workers are forked, which inherit them."""
    for job in jobs:
        KERNELS[job.kernel](job.data[:1].copy())


def _timed(peer: str, job: BenchJob, workers: int) -> Time:
    try:
        return Time(peer, job.name, *_measure(PEERS[peer], job, workers))
    except Exception as error:  # noqa: BLE001  # the others are to be measured, too
        return Time(peer, job.name, np.nan, f"failed: {type(error).__name__}: {error}")


def _measure(peer: Peer, job: BenchJob, workers: int) -> tuple[float, str]:
    """The median time of a run, and whether each was exactly NumPy's."""
    with peer(job.data.size, workers) as (array, run):
        taken, exact = zip(*_runs(array, lambda: run(job.kernel), job), strict=True)
        del array
    return median(taken[1:]), "exact" if all(exact) else "DIFFERS from NumPy"


def _runs(array: Array, run: Callable[[], object], job: BenchJob) -> Iterator[tuple[float, bool]]:
    """Runs till there are enough of them; the first warms up."""
    began = perf_counter()
    for number in range(1 + MOST):
        array[:] = job.data
        start = perf_counter()
        run()
        taken = perf_counter() - start
        yield taken, np.array_equal(array, job.expected)
        if number >= FEWEST and perf_counter() - began > ENOUGH:
            return


def _preface(jobs: list[BenchJob], workers: int) -> list[str]:
    facts = [*versions(("numpy", "numba")), *machine(), ("workers", str(workers))]
    told = [(job.name, f"{job.kernel} over {human(job.data.nbytes)}") for job in jobs]
    return [*table([*facts, *told]), ""]


def _results(times: list[Time], jobs: list[BenchJob]) -> list[str]:
    """A row for each peer, with its times and how many times ours that is."""
    found = {(time.peer, time.job): time.seconds for time in times}
    rows = [("", *(word for job in jobs for word in (job.name, "")))]
    for peer in reversed(PEERS):
        cells = [
            cell for job in jobs for cell in _cells(found[peer, job.name], found[OURS, job.name])
        ]
        rows.append((peer, *cells))
    return table(rows, right=range(1, 1 + 2 * len(jobs)))


def _cells(seconds: float, ours: float) -> tuple[str, str]:
    if not seconds > 0:
        return "failed", ""
    return _duration(seconds), f"{seconds / ours:.3g}x"


def _duration(seconds: float) -> str:
    """A time, in a unit in which it is short.

    Examples
    --------
    >>> _duration(0.25), _duration(0.00025)
    ('250 ms', '250 us')
    """
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def _footnotes() -> list[str]:
    return [
        "",
        "medians; starting workers, compiling and filling the array are excluded",
        f"x: how many times as long as parallel_apply on a {OURS} by worker processes",
        "each result is exactly what plain NumPy gives",
    ]

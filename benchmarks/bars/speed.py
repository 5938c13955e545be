"""Topics that compare runs of a kernel: each yields the outcomes of its promises."""

import math
import os
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks import kernels
from benchmarks.bars.turns import Outcome, ratio, turns
from benchmarks.jobs import JOBS
from benchmarks.peers import ours, stdlib

WORKERS = 2
ELEMENTS = int(float(os.environ.get("SHMCOMPUTE_BENCH_MIB", "512")) * (1 << 20)) // 8
LARGE = f"{ELEMENTS * 8 >> 20} MiB"
POOLS = {
    "processes": {"backend": "processes"},
    "processes, caller_runs": {"backend": "processes", "caller_runs": True},
    "threads": {"backend": "threads"},
}


@nb.njit
def sines(x):
    for i in nb.prange(x.size):
        y = x[i]
        for _ in range(40):
            y = math.sin(y)
        x[i] = y


def prange(kernel, array):
    """The parallel form, on as many threads as we have workers."""
    made = kernels.parallel(kernel)

    def run():
        nb.set_num_threads(WORKERS)
        made(array)

    run()
    return run


@contextmanager
def calls(kernel, data, pools=POOLS, call=sc.parallel_apply, **options):
    """For each pool, by name: the call on an array of its own."""
    with ExitStack() as opened:
        made = {}
        for name, how in pools.items():
            pool = opened.enter_context(sc.Pool(WORKERS, **how)).ready()
            array = opened.enter_context(sc.SharedArray(data))
            made[name] = partial(call, kernel, array, pool=pool, **options)
        yield made


def dispatch():
    """1024 elements: nothing but handing out."""
    data = JOBS["dispatch"].data
    with calls(kernels.stream, data) as applied, calls(kernels.stream, data) as bound:
        planned = {f"{name}, plan()": sc.plan(*c.args, **c.keywords) for name, c in bound.items()}
        base = prange(kernels.stream, data.copy())
        found = turns({"prange": base, **applied, **planned}, 9)
    what, callers = "1024 elements", "processes, caller_runs"
    yield ratio(f"{what}, {callers}, plan()", found, f"{callers}, plan()", "prange", 2)
    yield ratio(f"{what}, {callers}, parallel_apply", found, callers, "prange", 4)
    yield ratio(f"{what}, threads, parallel_apply", found, "threads", "prange", 6)


def isolated():
    """Workers that leave the caller alone, against the standard library's."""
    job = JOBS["dispatch"]
    with (
        calls(job.kernel, job.data, {"processes": POOLS["processes"]}) as applied,
        stdlib.pool_shared_memory() as ready,
        ready(job) as peer,
    ):
        call = applied["processes"]
        ways = {"plan": sc.plan(*call.args, **call.keywords), "apply": call, "Pool.map": peer.run}
        _check(peer, job)
        found = turns(ways)
    yield ratio("isolated processes, plan()", found, "plan", "Pool.map", 0.2)
    yield ratio("isolated processes, parallel_apply", found, "apply", "Pool.map", 0.2)


def stream():
    """One pass over memory, by all backends."""
    yield from _against_prange(f"stream, {LARGE}", kernels.stream, np.full(ELEMENTS, 0.5), 21)
    pinned = {"pinned": {"backend": "processes", "pin": True}}
    what = f"stream, {LARGE}, processes, pin=True"
    try:
        sc.Pool(1, **pinned["pinned"]).close()
    except NotImplementedError as error:  # not on this platform
        yield Outcome(what, 1.05, why=str(error))
        return
    yield from _against_prange(what, kernels.stream, np.full(ELEMENTS, 0.5), 21, pinned)


def compute():
    """Much work an element."""
    yield from _against_prange("compute, 40 sines, 2^21", sines, np.linspace(0.1, 0.9, 1 << 21), 7)


def _against_prange(what, kernel, data, rounds, pools=POOLS):
    with calls(kernel, data, pools) as ways:
        found = turns({"prange": prange(kernel, data), **ways}, rounds)
    for name in ways:
        yield ratio(f"{what}, {name}", found, name, "prange", 1.05)


def python():
    """A loop that holds the GIL, long enough that handing out does not show.

    The standard library's processes tell how much of twice as fast the machine has to give.
    """
    job = replace(JOBS["python kernel"], shape=(1 << 16,))
    alone = partial(job.kernel, job.data.copy())
    with (
        calls(job.kernel, job.data, {"processes": POOLS["processes"]}) as ways,
        stdlib.pool_shared_memory() as ready,
        ready(job) as peer,
    ):
        _check(peer, job)
        found = turns({"serial": alone, "Pool.map": peer.run, **ways}, 9)
    yield ratio("Python kernel, 2^16, processes", found, "processes", "serial", 0.55)
    yield ratio("Python kernel, 2^16, processes / Pool.map", found, "processes", "Pool.map", 1.05)


def _check(peer, job):
    """A peer that did less than its work would be quick."""
    peer.array[:] = job.data
    peer.run()
    np.testing.assert_array_equal(peer.array, job.expected)


def skewed():
    """Cost that rises with the index."""
    rows = np.full((1 << 19, 2), 0.5)
    rows[:, 0] = np.linspace(0, 2 * kernels.ROUNDS, len(rows)).astype(int)
    for name, pool in POOLS.items():
        kept = {name: pool}
        with (
            calls(kernels.skewed, rows, kept, schedule="static") as static,
            calls(kernels.skewed, rows, kept, schedule="dynamic") as dynamic,
        ):
            found = turns({"static": static[name], "dynamic": dynamic[name]}, 5)
        yield ratio(f"rising cost, dynamic / static, {name}", found, "dynamic", "static", 0.75)


def chain():
    """Four passes over memory, or one."""
    data = np.full(ELEMENTS, 0.5)
    passes = [prange(kernel, data) for kernel in kernels.CHAIN]
    base = lambda: [one() for one in passes]  # noqa: E731
    call = lambda kernel, array, pool: ours.chain(array, pool)  # noqa: E731
    with calls(None, data, call=call) as ways:
        found = turns({"prange": base, **ways}, 3)
    for name in ways:
        yield ratio(f"chain of four, {LARGE}, {name}", found, name, "prange", 0.65)

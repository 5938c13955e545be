"""Topics of what is paid once: compiling, memory, starting, being there."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from itertools import count

import numpy as np
import psutil

import shmcompute as sc
from benchmarks import kernels, startup
from benchmarks.bars.speed import ELEMENTS, LARGE, WORKERS, calls
from benchmarks.bars.turns import Outcome, ratio, turns
from benchmarks.first_calls import FIRST_CALLS
from benchmarks.settings import ENVIRONMENT
from benchmarks.wraps import WRAPS, Wrapped
from shmcompute.errors import WorkerLostError

numbers = count(1000)


def first_call():
    """Of a kernel that nobody has compiled, where workers are ready."""
    names = ["Numba prange", *(name for name in FIRST_CALLS if name.startswith("shmcompute"))]
    with ExitStack() as opened:
        ways = {}
        for name in names:
            array, call = opened.enter_context(FIRST_CALLS[name]())
            array[...] = 0.5
            ways[name] = lambda call=call: call(kernels.fresh(next(numbers)))
        # Nothing to do before a call, but to say that each counts, the first as well.
        found = turns(ways, 3, dict.fromkeys(ways, lambda: None))
    for name in names[1:]:
        yield ratio(f"first call, {name}", found, name, names[0], 0.5)


def wrap():
    """`SharedArray(source)` against what copying takes anyway."""
    source = np.linspace(0.0, 1.0, 1 << 25)
    warm, cold = "shmcompute, after a close", "shmcompute, cold"
    touched, by_hand = "np.copyto, touched memory", "fallocate and copy by hand"
    # The two of ours apart: the one gives back what the other is to find.
    found = {}
    for pair in ((touched, warm), (by_hand, cold)):
        ways = {name: Wrapped(WRAPS[name], source) for name in pair}
        found |= turns(ways, 5, {name: way.prepare for name, way in ways.items()})
        for way in ways.values():
            way.prepare()
    yield ratio("SharedArray of 256 MiB, after a close", found, warm, touched, 1.3)
    yield ratio("SharedArray of 256 MiB, cold", found, cold, by_hand, 1.1)


def start():
    """From imported modules to the first result of a kernel that must be compiled."""
    for name in ("shmcompute processes", "shmcompute processes, caller_runs"):
        what = f"pool of 2 to first result, {name}"
        yield Outcome(what, 1.2, [startup.seconds(name)], unit=" s")


def safety():
    """What is paid for the promise that nothing is done twice, and by who does not ask for it."""
    data, kept = np.full(ELEMENTS, 0.5), {"processes": {"backend": "processes"}}
    with calls(kernels.stream, data, kept) as made:
        plain = made["processes"]
        again = {f"retries={number}": partial(plain, retries=number) for number in (0, 3)}
        found = turns({"plain": plain, **again}, 9)
    yield ratio(f"stream, {LARGE}, retries=0", found, "retries=0", "plain", 1.05)
    yield ratio(f"stream, {LARGE}, retries=3", found, "retries=3", "retries=0", 2.2)


def lost():
    """From a worker's end to the next result."""
    with sc.Pool(WORKERS) as pool, sc.SharedArray.zeros(1024) as array:
        taken = [_lost_once(pool, array) for _ in range(5)]
    yield Outcome("lost worker replaced", 0.1, taken, unit=" s")


def _lost_once(pool, array):
    for _ in range(3):
        sc.parallel_apply(kernels.stream, array, pool=pool)
    began = time.perf_counter()
    os.kill(pool.pids[0], signal.SIGKILL)
    while True:
        try:
            sc.parallel_apply(kernels.stream, array, pool=pool)
        except WorkerLostError:
            continue
        return time.perf_counter() - began


def imports():
    """The whole import against Numba's, each in a fresh process."""
    _import_seconds("shmcompute")  # keeps its bytecode, as for any user
    more = [(_import_seconds("shmcompute") - _import_seconds("numba")) * 1e3 for _ in range(5)]
    yield Outcome("import shmcompute over import numba", 80, more, unit=" ms")


def _import_seconds(name):
    code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
    return float(subprocess.check_output([sys.executable, "-c", code], env=ENVIRONMENT))


def idle():
    """What a pool takes of the processors when it has had nothing to do for a second."""
    for backend in ("processes", "threads"):
        with sc.Pool(WORKERS, backend=backend) as pool, sc.SharedArray.zeros(1024) as array:
            sc.parallel_apply(kernels.stream, array, pool=pool)
            who = [psutil.Process(pid) for pid in [os.getpid(), *pool.pids]]
            time.sleep(1.0)
            before = _busy(who)
            time.sleep(2.0)
            share = (_busy(who) - before) / 2.0 * 100
        yield Outcome(f"idle pool, {backend}", 0.5, [share], unit=" % CPU")


def _busy(processes):
    """Seconds that they have used, which the system counts in hundredths."""
    return sum(sum(process.cpu_times()[:2]) for process in processes)

"""`backend="auto"` against each backend by name: from a few elements to large arrays.

Each size is a row of two: against the best of the three, and against serial. What is chosen is
settled before it is timed. The largest of `compute` and `python` are what a serial call takes some
tenths of a second for; SHMCOMPUTE_BENCH_AUTO=26 makes all three go to 2^26, which takes an hour.
"""

import math
import os
import time
from contextlib import ExitStack
from functools import partial
from statistics import median

import numba as nb

import shmcompute as sc
from benchmarks.bars.speed import WORKERS
from benchmarks.bars.turns import ratio, turns

NAMES = ("serial", "threads", "processes")
SETTLING = 0.3  # seconds of calls, more than all trials take; or so many calls, if they are long:
LEAST = 20
FIRST, STEP = 4, 2  # exponents of two
# Rounds: from turn to turn a call of some microseconds takes a tenth more or less.
MANY, FEW = 15, 5
SHORT = 0.002  # seconds of a call of which there are many
ASKED = os.environ.get("SHMCOMPUTE_BENCH_AUTO")


@nb.njit
def stream(x):
    for i in range(x.size):
        x[i] *= 2


@nb.njit
def compute(x):
    for i in range(x.size):
        y = x[i]
        for _ in range(40):
            y = math.sin(y)
        x[i] = y


def python(x):
    for i in range(x.size):
        x[i] = -x[i]


LAST = {stream: 26, compute: 20, python: 20}


def auto():
    """All sizes of each kernel."""
    with ExitStack() as opened:
        pools = {
            name: opened.enter_context(sc.Pool(WORKERS, backend=name)).ready()
            for name in (*NAMES, "auto")
        }
        for kernel, last in LAST.items():
            for exponent in range(FIRST, int(ASKED or last) + 1, STEP):
                yield from _of_size(kernel, exponent, pools)


def _of_size(kernel, exponent, pools):
    # Zeros: none of the three kernels changes them, nor takes longer for what they become.
    with sc.SharedArray.zeros(1 << exponent) as array:
        ways = {
            name: partial(sc.parallel_apply, kernel, array, pool=pool)
            for name, pool in pools.items()
        }
        ends = time.perf_counter() + SETTLING
        while time.perf_counter() < ends:
            ways["auto"]()
        for _ in range(LEAST if exponent < LAST[stream] else LEAST // 2):
            ways["auto"]()
        began = time.perf_counter()
        ways["auto"]()
        found = turns(ways, MANY if time.perf_counter() - began < SHORT else FEW)
    best = min(NAMES, key=lambda name: median(found[name]))
    what = f"auto, {kernel.__name__}, 2^{exponent}"
    yield ratio(f"{what}, best of three", found, "auto", best, 1.1)
    yield ratio(f"{what}, serial", found, "auto", "serial", 1.1)

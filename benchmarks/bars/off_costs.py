"""A topic of what progress and traces cost who did not ask: against a copy that knows neither."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import shmcompute as sc
from benchmarks.bars.turns import REST, ratio

CALLS, ROUNDS = 3000, 9
PACKAGE = Path(sc.__file__).parent
POOLS = {
    "processes": {},
    "processes, caller_runs": {"caller_runs": True},
    "threads": {"backend": "threads"},
}
# The tests of whether somebody asked, in Python and in machine code. A constant in their place is
# folded when they are compiled, with what would follow.
TESTS = {
    r"\b(recording\.recorder|recorder|progress|meter|report) is None": "True",
    r"\b(recording\.recorder|recorder|progress|meter|report) is not None": "False",
    r"\bload\(control \+ RUN\)": "0",
}
TIMER = f"""
import statistics, sys, time
import numpy as np, shmcompute as sc
from benchmarks import kernels
assert sc.__file__.startswith(sys.argv[1]), sc.__file__
with sc.Pool(2, **eval(sys.argv[2])) as pool, sc.SharedArray(np.full(1024, 0.5)) as arr:
    sc.parallel_apply(kernels.stream, arr, pool=pool.ready(60))
    print("ready", flush=True)
    for _ in sys.stdin:
        for count in ({CALLS} // 4, {CALLS}):
            began = time.perf_counter()
            for _ in range(count):
                sc.parallel_apply(kernels.stream, arr, pool=pool)
        print((time.perf_counter() - began) / {CALLS}, flush=True)
"""


def off_costs():
    """1024 elements: nothing but handing out."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "without", "shmcompute")
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if changed := _without_tests(copy):
            yield from _compare(copy.parent, changed)


def _without_tests(package):
    """Take the tests out of the code; how many there were."""
    changed = 0
    for path in package.rglob("*.py"):
        text = path.read_text()
        for test, value in TESTS.items():
            text, count = re.subn(test, value, text)
            changed += count
        path.write_text(text)
    return changed


def _compare(folder, changed):
    for name, options in POOLS.items():
        with ExitStack() as opened:
            timers = {
                side: opened.enter_context(Timer(place, options))
                for side, place in (("with", PACKAGE.parent), ("without", folder))
            }
            found = {side: [] for side in timers}
            for _ in range(ROUNDS):
                for side, timer in timers.items():
                    time.sleep(REST)
                    found[side].append(timer.seconds())
        yield ratio(f"{changed} tests of who asked, 1024, {name}", found, "with", "without", 1.02)


class Timer:
    """A program that takes the package from a folder, and the time of a call when it is asked."""

    def __init__(self, folder, options):
        self._process = subprocess.Popen(
            [sys.executable, "-c", TIMER, str(folder), repr(options)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{folder}:{PACKAGE.parent}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._line()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.communicate()

    def seconds(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self):
        if line := self._process.stdout.readline():
            return line
        raise RuntimeError(f"the program that takes the time ended with {self._process.wait()}")

"""A topic of what a trace costs: who is traced, against who is not."""

from functools import partial

import numpy as np

import shmcompute as sc
from benchmarks import kernels
from benchmarks.bars.speed import calls
from benchmarks.bars.turns import ratio, turns

CALLS = 200  # so many that to begin and end a trace does not show


def trace():
    """1024 elements: nothing but handing out, and noting it."""
    pools = {
        "processes, caller_runs": {"backend": "processes", "caller_runs": True},
        "threads": {"backend": "threads"},
    }
    with calls(kernels.stream, np.full(1024, 0.5), pools) as made:
        for name, call in made.items():
            found = turns({"plain": partial(_many, call), "traced": partial(_traced, call)}, 9)
            yield ratio(f"traced, 1024 elements, {name}", found, "traced", "plain", 1.5)


def _many(call):
    for _ in range(CALLS):
        call()


def _traced(call):
    with sc.trace():
        _many(call)

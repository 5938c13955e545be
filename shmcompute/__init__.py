"""Shared-memory NumPy arrays that every core works on in place.

Wrap an array in a `SharedArray`, hand it with a kernel to `parallel_apply`.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    raise ImportError("shmcompute needs POSIX shared memory, locks and signals, so not Windows")

from shmcompute import config, errors, log  # noqa: F401  # the log listens from now on
from shmcompute.apply import parallel_apply, plan
from shmcompute.arrays import (
    SharedArray,
    atomic_add,
    atomic_max,
    atomic_min,
    compare_exchange,
    provide_parallel_forms,
)
from shmcompute.chunked import applied
from shmcompute.chunking import (
    chunk,
    halo,
    offset,
    per_chunk,
    read,
    rng,
    scratch,
    shared,
    split,
    sweep,
    whole,
    write,
)
from shmcompute.default_pools import shutdown
from shmcompute.loops import parallel_for
from shmcompute.pool import Pool

if TYPE_CHECKING:
    from shmcompute.algorithms import (
        parallel_argsort,
        parallel_reduce,
        parallel_scan,
        parallel_sort,
    )
    from shmcompute.arrays import SharedArrayManager
    from shmcompute.backends.processes import dump_kernel, load_kernel
    from shmcompute.diagnostics import explain
    from shmcompute.diagnostics.trace import trace
    from shmcompute.iterate import parallel_iterate
    from shmcompute.queues import ArrayQueue

__version__ = "0.1.0"
__all__ = [
    "ArrayQueue",
    "Pool",
    "SharedArray",
    "SharedArrayManager",
    "applied",
    "atomic_add",
    "atomic_max",
    "atomic_min",
    "chunk",
    "compare_exchange",
    "dump_kernel",
    "errors",
    "explain",
    "halo",
    "load_kernel",
    "offset",
    "parallel_apply",
    "parallel_argsort",
    "parallel_for",
    "parallel_iterate",
    "parallel_reduce",
    "parallel_scan",
    "parallel_sort",
    "per_chunk",
    "plan",
    "read",
    "rng",
    "scratch",
    "shared",
    "shutdown",
    "split",
    "sweep",
    "trace",
    "whole",
    "write",
]


def _parallel_forms() -> Any:
    from shmcompute.algorithms import numpy_functions  # noqa: PLC0415  # at the first large call

    return numpy_functions.FORMS


provide_parallel_forms(_parallel_forms)

# What few programs need is imported at first use, so that ``import shmcompute`` stays quick.
_LATER = {
    "ArrayQueue": "queues",
    "dump_kernel": "backends.processes",
    "load_kernel": "backends.processes",
    "SharedArrayManager": "arrays",
    "explain": "diagnostics",
    "parallel_argsort": "algorithms",
    "parallel_iterate": "iterate",
    "parallel_reduce": "algorithms",
    "parallel_scan": "algorithms",
    "parallel_sort": "algorithms",
    "trace": "diagnostics.trace",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        module = importlib.import_module(f"{__name__}.{_LATER[name]}")
        globals()[name] = getattr(module, name)
        return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if _traced := config.setting("TRACE"):
    importlib.import_module("shmcompute.diagnostics.trace").trace_program(_traced)

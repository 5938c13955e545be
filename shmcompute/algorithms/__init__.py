"""What is built of calls: reductions, scans, sorts, histograms, and what NumPy calls by name."""

import importlib
from typing import TYPE_CHECKING, Any

from shmcompute.algorithms.parts import run_parts, workers

if TYPE_CHECKING:
    from shmcompute.algorithms.reduce import parallel_reduce
    from shmcompute.algorithms.scan import parallel_scan
    from shmcompute.algorithms.sort import parallel_argsort, parallel_sort

__all__ = [
    "numpy_functions",
    "parallel_argsort",
    "parallel_reduce",
    "parallel_scan",
    "parallel_sort",
    "run_parts",
    "workers",
]

# Imported at first use: some bring machine code with them.
_LATER = {
    "parallel_argsort": "sort",
    "parallel_reduce": "reduce",
    "parallel_scan": "scan",
    "parallel_sort": "sort",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

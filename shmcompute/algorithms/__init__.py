"""What is built of calls: reductions, scans, sorts, histograms, and what NumPy calls by name."""

from typing import TYPE_CHECKING, Any

from shmcompute.algorithms.parts import run_parts, workers

if TYPE_CHECKING:
    from shmcompute.algorithms.sort import parallel_argsort, parallel_sort

__all__ = ["numpy_functions", "parallel_argsort", "parallel_sort", "run_parts", "workers"]


def __getattr__(name: str) -> Any:
    """Import at first use what brings machine code with it."""
    # ruff: noqa: PLC0415
    if name in ("parallel_argsort", "parallel_sort"):
        from shmcompute.algorithms import sort

        return getattr(sort, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What is built of calls: reductions, scans, sorts, histograms, and what NumPy calls by name."""

from shmcompute.algorithms.parts import run_parts, workers

__all__ = ["run_parts", "workers"]

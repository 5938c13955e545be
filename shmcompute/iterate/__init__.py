"""Sweeps: a call that is repeated, with arrays that change places."""

from shmcompute.iterate.front import parallel_iterate

__all__ = ["parallel_iterate"]

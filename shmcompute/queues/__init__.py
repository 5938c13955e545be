"""Queues of arrays between processes; see README.md."""

from shmcompute.queues.array_queue import ArrayQueue

__all__ = ["ArrayQueue"]

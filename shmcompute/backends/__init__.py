"""Backends: interchangeable runners of plans and tasks."""

from shmcompute.backends.base import Backend
from shmcompute.backends.factory import make_backend

__all__ = [
    "Backend",
    "auto",  # for who asks for it
    "make_backend",
]

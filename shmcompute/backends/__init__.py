"""Backends: interchangeable runners of plans and tasks."""

from shmcompute.backends.base import Backend, Prospect, Terms
from shmcompute.backends.factory import backend_class, make_backend

__all__ = [
    "Backend",
    "Prospect",
    "Terms",
    "auto",  # for who asks for it
    "backend_class",
    "make_backend",
    "processes",  # for its `dump_kernel` and `load_kernel`
]

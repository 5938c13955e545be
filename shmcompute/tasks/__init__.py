"""Tasks: calls of functions with a future, as `concurrent.futures` has them."""

from shmcompute.tasks.executor import Executor
from shmcompute.tasks.work_item import Function, WorkItem, describe

__all__ = ["Executor", "Function", "WorkItem", "describe"]

"""Tasks: calls of functions with a future, as `concurrent.futures` has them."""

from shmcompute.tasks.call_queue import CallQueue, run_at_once
from shmcompute.tasks.executor import Executor
from shmcompute.tasks.initializer import Initializer, refusal
from shmcompute.tasks.task_threads import TaskThreads
from shmcompute.tasks.work_item import Function, WorkItem, describe

__all__ = [
    "CallQueue",
    "Executor",
    "Function",
    "Initializer",
    "TaskThreads",
    "WorkItem",
    "describe",
    "refusal",
    "run_at_once",
]

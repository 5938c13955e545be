"""What both sides of a worker's pipe know: the messages, how they travel, and plans as bytes."""

from shmcompute.backends.processes.protocol.messages import (
    Attend,
    Exit,
    Failure,
    Forget,
    Load,
    Loaded,
    PackedPlan,
    Ready,
    Rest,
    Result,
    Task,
    Tasks,
)
from shmcompute.backends.processes.protocol.pickling import (
    pack,
    pack_error,
    pack_result,
    pack_task,
    unpack,
    unpack_error,
    unpack_result,
)
from shmcompute.backends.processes.protocol.pipe import Lost, Pipe

__all__ = [
    "Attend",
    "Exit",
    "Failure",
    "Forget",
    "Load",
    "Loaded",
    "Lost",
    "PackedPlan",
    "Pipe",
    "Ready",
    "Rest",
    "Result",
    "Task",
    "Tasks",
    "pack",
    "pack_error",
    "pack_result",
    "pack_task",
    "unpack",
    "unpack_error",
    "unpack_result",
]

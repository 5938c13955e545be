"""What both sides of a worker's pipe know: the messages, how they travel, and plans as bytes."""

from shmcompute.backends.processes.protocol import (
    exception_pickling,
    messages,
    module_globals,
    pickling,
)
from shmcompute.backends.processes.protocol.pipe import Lost, Pipe

__all__ = [
    "Lost",
    "Pipe",
    "exception_pickling",
    "kernel_bytes",  # imported where it is needed
    "messages",
    "module_globals",
    "pickler",  # likewise
    "pickling",
]

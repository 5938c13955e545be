"""What both sides of a worker's pipe know: the messages, how they travel, and plans as bytes."""

from shmcompute.backends.processes.protocol import messages, pickling
from shmcompute.backends.processes.protocol.imports import Imports, enter_worker, watch_reloads
from shmcompute.backends.processes.protocol.pipe import Lost, Pipe

__all__ = ["Imports", "Lost", "Pipe", "enter_worker", "messages", "pickling", "watch_reloads"]

"""`Place`: which slot of which control block is a worker's, as it travels to its process."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import reduction
from multiprocessing.context import get_spawning_popen
from typing import Any

from shmcompute.backends.doorbell import Block, Seat


@dataclass(frozen=True)
class Place:
    """Travels only to a process that is just being started: by inheritance, or with its start."""

    fd: int  # of the control block
    workers: int
    number: int
    turns: int

    def __reduce__(self) -> tuple[Any, ...]:
        # Under spawn and forkserver a descriptor goes with what starts the process. (Without that,
        # multiprocessing would open a listening socket for it.)
        if get_spawning_popen() is None:
            raise TypeError("a place at the bell can't be pickled")
        return _arrived, (reduction.DupFd(self.fd), self.workers, self.number, self.turns)

    def taken(self) -> tuple[Block, Seat]:
        """The control block and the seat, in the worker."""
        block = Block(self.workers, self.fd)
        return block, Seat(block, self.number, self.turns)


def _arrived(sent: Any, workers: int, number: int, turns: int) -> Place:
    return Place(sent.detach(), workers, number, turns)

"""`Options` of a call, and the `Target` that is to run it: what a plan is built for."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from shmcompute.chunking import Chunk


class Options(NamedTuple):
    """How a call is cut and run; see `parallel_apply`."""

    axis: int | tuple[int, int] = 0
    chunksize: int | tuple[int, int] | None = None
    schedule: str = "static"
    retries: int = 0
    debug: bool = False
    extent: Chunk | None = None  # the range of a parallel_for
    fine: bool = False  # whether somebody watches how far it is: see `cut`


class Target(Protocol):
    """What building a plan must know of the backend that is to run it."""

    workers: int
    shared: bool
    threaded: bool

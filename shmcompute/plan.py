"""`Plan`: a kernel, its bound arguments and its chunks: all that a run needs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from shmcompute.access import Arguments
from shmcompute.kernel import Kernel
from shmcompute.partition import Chunk

_inside = threading.local()


@dataclass(frozen=True, eq=False)
class Plan:
    """Frozen and complete. Every backend runs it by `run_chunk`, in whatever process."""

    kernel: Kernel
    arguments: Arguments
    chunks: tuple[Chunk, ...]
    static: bool  # whether chunks are dealt before the run, or taken by the next free worker

    def run_chunk(self, number: int) -> None:
        """Call the kernel on one chunk. There is no other place where a kernel is called."""
        chunk = self.chunks[number]
        try:
            with _kernel():
                self.kernel(self.arguments.at(chunk))
        except BaseException as error:
            with suppress(
                Exception
            ):  # a kernel's exception may refuse, and is to come all the same
                error.add_note(f"in chunk [{chunk[0]}, {chunk[1]}) of kernel {self.kernel.name}")
            raise

    def threaded(self) -> Plan:
        """The same plan with a kernel fit for several threads of one process."""
        kernel = self.kernel.threaded()
        return self if kernel is self.kernel else replace(self, kernel=kernel)


def inside_kernel() -> bool:
    """Whether this thread is running a kernel right now."""
    return getattr(_inside, "depth", 0) > 0


@contextmanager
def _kernel() -> Iterator[None]:
    _inside.depth = getattr(_inside, "depth", 0) + 1
    try:
        yield
    finally:
        _inside.depth -= 1

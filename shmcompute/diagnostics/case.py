"""`Case`: what advice on a call is given by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shmcompute.backends import Backend
from shmcompute.chunking import Bound, ChunkCall, Part
from shmcompute.diagnostics.explanation import ChunkAccount, KernelAccount
from shmcompute.plans import Link, Options, Plan
from shmcompute.typing import Array

Found = Iterator[tuple[str, str]]  # what is slow or odd, and the remedy


@dataclass(frozen=True)
class Case:
    """A call that is explained."""

    plan: Plan
    options: Options
    backend: type[Backend]
    workers: int
    started: bool  # whether they are there
    chunks: ChunkAccount
    kernels: tuple[KernelAccount, ...]
    anew: str | None

    @property
    def links(self) -> Iterator[tuple[Link, KernelAccount]]:
        """Each link with its account."""
        return zip(self.plan.links, self.kernels, strict=True)

    @property
    def several(self) -> bool:
        """Whether several work at the same time."""
        return self.chunks.takers > 1

    def arguments(self, *kinds: type[Any]) -> Iterator[tuple[str, Bound]]:
        """The arguments of some kinds, and what messages call them."""
        for link in self.plan.links:
            for position, argument in enumerate(link.arguments.bound):
                if isinstance(argument, kinds):
                    yield f"argument {position} of {link.kernel.name}", argument

    def parts(self) -> Iterator[tuple[str, Part, Array]]:
        """The arrays that are cut, and what the longest chunk sees of each."""
        start, stop = max(self.plan.chunks, key=lambda chunk: chunk[1] - chunk[0], default=(0, 0))
        for which, part in self.arguments(Part):
            if isinstance(part, Part) and part.view.size:
                yield which, part, part.at(ChunkCall(start, stop))


Look = Callable[[Case], Found]  # what looks for one topic

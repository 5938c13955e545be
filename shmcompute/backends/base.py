"""What a backend is: workers that run plans, and tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from shmcompute.chunking import Values
from shmcompute.errors import KernelTimeoutError
from shmcompute.plans import Plan
from shmcompute.tasks import Function

# Told how many chunks of a run are done; what it raises ends the run.
Report = Callable[[int], None]

# Why a caller does its own share by Python, though workers do not.
TIMED = "with timeout= the caller's own share is called from Python, to look at the time"


class Terms(NamedTuple):
    """What a prospect depends on beside the plan."""

    workers: int
    timed: bool = False  # whether there is a timeout
    caller_runs: bool = False  # whether the caller is one of the workers


@dataclass(frozen=True)
class Prospect:
    """How a backend would run a plan, for who asks before it does."""

    reasons: tuple[str | None, ...]  # why Python calls each kernel; None: machine code does
    own: str | None = None  # why the caller's own share is another matter
    sent: int | None = None  # bytes that each worker is sent, once; None: nothing is
    sources: tuple[str | None, ...] = ()  # why it is the source of each kernel that is sent


class Backend(ABC):
    """Runs plans, one at a time or several, until closed.

    Attributes
    ----------
    workers : int
        How many chunks run at the same time.
    shared : bool
        Whether chunks run in other processes, which see shared arrays only.
    threaded : bool
        Whether they run in several threads of this one.
    caller_runs : bool
        Whether the calling thread runs some of them.
    copies : bool
        Whether they see copies of chunks, so that no two of them can write one array.
    """

    workers: int
    shared: bool = False
    threaded: bool = False
    caller_runs: bool = True
    copies: bool = False

    @abstractmethod
    def run(
        self, plan: Plan, values: Values, timeout: float | None, report: Report | None = None
    ) -> None:
        """Run every chunk, with these values of the plan's numbers.

        Return or raise when none is being written any more. `report` is called now and then by
        the calling thread, while it waits or between its own chunks.
        """

    @classmethod
    def prospect(cls, plan: Plan, terms: Terms) -> Prospect:  # noqa: ARG003  # others ask
        """How it would run a plan.

        Nothing is run, and no backend needs to be there.

        Raises
        ------
        KernelSerializationError
            If the plan would have to travel, and can't.
        """
        return Prospect(plan.reasons)

    def admit(self, plan: Plan) -> None:
        """Raise what would keep a plan from its workers, before anything runs."""
        return

    @abstractmethod
    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        """Have a worker call a function."""

    def within_call(self) -> bool:
        """Whether this thread is within a call or task of its, so that no other one can end."""
        return False

    def ready(self, timeout: float | None = None) -> None:
        """Wait until workers can take work."""
        return

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that are processes of their own."""
        return []

    @abstractmethod
    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """Close when tasks are done, those that were not begun cancelled if so asked."""

    def end_workers(self, signal: int) -> None:
        """Close now: cancel tasks that were not begun, and send workers a signal that ends them."""
        raise NotImplementedError(
            "only worker processes can be ended while they work, and this pool has none; "
            "shutdown(wait=False, cancel_futures=True) leaves what runs to its end"
        )

    @abstractmethod
    def close(self, *, wait: bool = True) -> None:
        """End the workers, after the call that runs if `wait`. Idempotent."""


def raise_first(errors: list[BaseException]) -> None:
    """Raise the first of them, if there is one, and empty the list.

    A traceback refers to the frames it came through, and these to what they hold: an error that any
    of them held would be a cycle, and keep the arrays of the call until a garbage collection.
    """
    try:
        if errors:
            raise errors[0]
    finally:
        errors.clear()


def overrun(plan: Plan, timeout: float | None, numbers: list[int]) -> KernelTimeoutError:
    """The error of a call that has overrun with these chunks not known to be done."""
    return KernelTimeoutError(
        f"kernel {plan.name} overran its timeout of {timeout} s; the content of "
        f"{len(numbers)} of {len(plan.chunks)} chunks is undefined (see .chunks)",
        [plan.chunks[number] for number in sorted(numbers)],
    )

"""`Records`: what a pool knows of the calls that it runs, by what makes them alike."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from types import MethodType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from shmcompute.arrays import SharedArray
from shmcompute.chunking import ARRAY_MARKERS
from shmcompute.kernels import unwrap
from shmcompute.plans import Calls, Options
from shmcompute.tuning.choose import Choice, choose
from shmcompute.tuning.measurements import Measurements
from shmcompute.tuning.work import Work

KEPT = 256  # records
CHECK = 1e-2  # seconds of calls after which some are measured, each of which costs 30 µs more,
IN_A_ROW = 3  # and how many are: the way of measuring has left caches, and its first is slow
LONGEST = 2000  # calls that are not measured, at most


class Decision:
    """Who runs a call of which the best backend is known, and how often before it is measured."""

    __slots__ = ("left", "pool")

    def __init__(self, pool: Any, left: int) -> None:
        self.pool = pool
        self.left = left


class Record:
    """Calls that are alike: their work, and what they have taken.

    Attributes
    ----------
    refused : dict
        The backends that can't run them, and why.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.measured = Measurements()
        self.refused: dict[str, str] = {}
        self._unmeasured = 0  # calls since the latest that was measured, about
        self._in_a_row = 0  # how many were measured since
        if work.numbered:
            self.refused["serial"] = "it cuts into other chunks, which the kernel would see"

    def choose(self, starts: Mapping[str, float]) -> Choice:
        """The backend of the next call, of those that can run it; nothing changes by asking."""
        left = {name: cost for name, cost in starts.items() if name not in self.refused}
        return choose(self.work, self.measured, left)

    def add(self, choice: Choice, seconds: float) -> int:
        """A call took so long; how many may now go the same way without being measured."""
        self.measured.add(choice.backend, seconds, 1 + self._unmeasured)
        if choice.settled:
            self.measured.settle()
        self._unmeasured, self._in_a_row = self.measured.to_warm(seconds), self._in_a_row + 1
        least = self.measured.least(choice.backend) if choice.settled else None
        if least is not None and self._in_a_row >= IN_A_ROW:
            self._unmeasured = max(self._unmeasured, min(LONGEST, int(CHECK / max(least, 1e-9))))
        if self._unmeasured:
            self._in_a_row = 0
        return self._unmeasured

    def keep_apart(self, why: str) -> None:
        """Have only worker processes run such calls: this process would not survive them."""
        self.refused.update({"serial": why, "threads": why})


class Records:
    """The latest records by what their calls have in common (`outline`)."""

    def __init__(self) -> None:
        self._records: dict[Hashable, Record] = {}
        self._notes: dict[Hashable, Decision] = {}

    def find(self, key: Hashable, make: Callable[[], Record]) -> Record:
        """The record of such calls; a new one if there is none."""
        try:
            record = self._records.get(key)
        except TypeError:  # not hashable: an option of a wrong type, which is refused elsewhere
            return make()
        if record is None:
            record = make()
            for oldest in list(self._records)[: 1 - KEPT]:
                self._records.pop(oldest, None)
            self._records[key] = record
        return record

    def note(self, key: Hashable) -> Decision | None:
        """What was noted of a call, if it may be run by that."""
        try:
            note = self._notes.get(key)
        except TypeError:
            return None
        return note if note is not None and note.left > 0 else None

    def keep(self, key: Hashable, note: Decision) -> None:
        """Note who runs a call.

        The key may name an array by its id, which another may have later: then a few calls of that
        go where they are slower.
        """
        for oldest in list(self._notes)[: 1 - KEPT]:
            self._notes.pop(oldest, None)
        self._notes[key] = note


def outline(calls: Calls, options: Options) -> Hashable:
    """What calls have in common that take about the same time.

    It refers to no array and no function, whose closure may hold some.
    """
    cut = options.extent
    length = None if cut is None else (cut[1] - cut[0]).bit_length()
    how = options._replace(extent=None)
    return how, length, *((_code(kernel), *map(_kind, args)) for kernel, *args in calls)


def _code(kernel: Any) -> Hashable:
    """What a callable runs."""
    function = unwrap(kernel)[0]
    if isinstance(function, Dispatcher):
        function = function.py_func
    if isinstance(function, MethodType):
        function = function.__func__
    own: Any = type(function)
    named = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    return getattr(function, "__code__", own), named if isinstance(named, str) else None


def _kind(arg: Any) -> Any:
    """What an argument is, and about how large."""
    if isinstance(arg, (SharedArray, np.ndarray)):
        longest = max(arg.shape, default=0)
        return type(arg), arg.dtype, arg.ndim, arg.nbytes.bit_length(), longest.bit_length()
    if isinstance(arg, ARRAY_MARKERS):
        return type(arg), _kind(arg.value), repr(getattr(arg, "axis", None))
    return type(arg)

"""`Program`: the plan of many sweeps in machine code, kept by its pool for calls like it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable

import numpy as np

from shmcompute.arrays import SharedArray
from shmcompute.chunking import VALUES, Values
from shmcompute.plans import Calls, Options, Plan, call_key, plain_arrays, shared_arrays
from shmcompute.plans.sweeping import build_sweeps
from shmcompute.pool import Pool
from shmcompute.typing import Array

LINE = 16  # words: at such a multiple stands what workers write side by side


class _Held:
    """What a plan needs while it lives: its state, of which one run at a time has the use."""

    def __init__(self, state: SharedArray | None) -> None:
        self.state = state
        self.used = threading.Lock()


_held: weakref.WeakKeyDictionary[Plan, _Held] = weakref.WeakKeyDictionary()


class Program:
    """A plan for the use of one run, with its numbers. Release it when the run is over."""

    def __init__(self, plan: Plan, values: Values, held: _Held) -> None:
        self.plan = plan
        self.values = values
        self._held = held

    def release(self) -> None:
        """Let another run have the use of it."""
        self._held.used.release()


def find_program(
    parities: tuple[Calls, Calls], options: Options, pool: Pool, swap: tuple[SharedArray, ...]
) -> Program | None:
    """The program of a call, one that is known if there is one; None if Python has to run it."""
    key, values = _key(parities[0], options, swap)
    known = pool.plans.find(key)
    held = None if known is None else _held.get(known)
    if known is not None and held is not None and held.used.acquire(blocking=False):
        return Program(known, values, held)
    made: list[SharedArray] = []

    def new_state(words: int) -> Array:
        if not pool.running.shared:
            return _aligned(words)
        made.append(SharedArray.zeros(words, np.int64))
        return made[0].array

    plan = build_sweeps(parities, options, pool.running, new_state)
    if plan is None:
        for state in made:
            state.close()
        return None
    held = _held[plan] = _Held(made[0] if made else None)
    held.used.acquire()
    if known is None:
        calls = [*parities[0], *parities[1]]
        pool.plans.keep(key, plan, [*shared_arrays(calls), *swap], plain_arrays(calls))
    return Program(plan, plan.values, held)


def _key(
    calls: Calls, options: Options, swap: tuple[SharedArray, ...]
) -> tuple[Hashable | None, Values]:
    """What is the same for calls that one program serves, and their numbers, of both parities."""
    keys = [call_key(kernel, tuple(args), options) for kernel, *args in calls]
    values = tuple(value for _, values in keys for value in values) * 2
    if any(key is None for key, _ in keys) or len(values) > VALUES:
        return None, values
    return ("sweeps", *(key for key, _ in keys), *map(id, swap)), values


def _aligned(words: int) -> Array:
    """So many words, which begin where a cache line does."""
    memory = np.zeros(words + LINE, np.int64)
    skip = -memory.ctypes.data // memory.itemsize % LINE
    return memory[skip : skip + words]

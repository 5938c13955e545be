"""Many sweeps in machine code: each worker goes its way through the levels, without Python.

It is the way of `plans.sweep_schedule`, which says why it is right; what it walks by is words in
memory. A worker counts the phases that it has ended in a word of its own, and begins the next when
its neighbours have ended the last: there is no other barrier. Who waits spins for a while and then
sleeps on the neighbour's word, and after `PATIENCE` it gives up: it answers its ring, and the
caller, who sees that the sweeps are not done, rings again. So nobody waits for long for a worker
that is dead, that was never rung for, or whose part another thread has yet to begin.

The file is long because Numba inlines its functions into one another, and its cache on disk knows a
function by its file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core.registry import cpu_target

from shmcompute.chunking import Values
from shmcompute.kernels.dispatcher_pickling import refresh
from shmcompute.kernels.native_plan import NativeCall, NativePlan, words_of_calls
from shmcompute.kernels.trampoline import (
    address_of,
    compile_function,
    native_error,
    scalar_bytes,
)
from shmcompute.system import atomic_words
from shmcompute.system.atomic_words import (
    add,
    call,
    give_way,
    jitted,
    load,
    relax,
    store,
    wait,
    wake_all,
)
from shmcompute.system.compiling import call_compiler
from shmcompute.typing import Array

WORD, LINE = 8, 128  # bytes

# The words of a program, the same for all workers
PARTS = 0  # below 0: so it is no list of chunks
WAY = 8  # the address of `sweep`, as those call it who have such words
LINKS = 16
BLOCK = 24  # sweeps of a block of time; 0: each level is a phase
SLAB = 32
STATE = 40  # the address of what follows below
CALLS = 48  # trampoline, block and place in the frame of each link, for both parities; then the
# edges of parts, then the slopes, left and right, of each level of a block.
CALL = 3 * WORD

# Of a run, in memory that all workers share
GOAL = 0  # phases to have ended when it is over
TIMES = 8  # sweeps in all
SPIN = 16  # iterations that who waits spins before it sleeps
POLLS = 24  # not 0: who waits polls, for there is no futex
FIRST = 32  # the number of the first sweep, as kernels are told
HALT = 40  # not 0: who runs its share from Python is to stop; others have such a word of their own
ALONE = 48  # not 0: the worker of the first part does all, and nobody waits
PART = LINE  # of each part, a line:
ENDED = 0  # phases that it has ended
SLEEPERS = 8  # how many sleep until that changes

STOPPED = -1  # no code of Numba's
SPINS = 10_000  # iterations, some 0.3 ms, where there is a core for each part
COURTESY = 32  # iterations of spinning, about a microsecond, between giving way
NAP = 2_000_000  # ns that who waits sleeps before it looks whether all are to stop
PATIENCE = 10  # naps


def program(calls: Sequence[NativeCall], schedule: Any, state: Array) -> NativePlan:
    """The program of a `plans.sweep_schedule`.

    Its calls are those of all links, of an even sweep and then of an odd one.
    """
    blocked = schedule.sweeps if schedule.blocked else 0
    links = len(calls) // 2
    head = [-schedule.parts, _entry(), links, blocked, schedule.slab, state.ctypes.data]
    slopes = chain.from_iterable(schedule.slopes)
    words = np.array([*head, *words_of_calls(calls), *schedule.edges, *slopes], np.int64)
    return NativePlan(words, calls, state)


def run_part(
    plan: NativePlan, frame: bytes, part: int, values: Values, worker: int
) -> BaseException | None:
    """Do in this thread what falls to a part; what a kernel raised. The frame has addresses."""
    numbers = b"".join(scalar_bytes(value) or b"" for value in values)
    packed = np.frombuffer(numbers + bytes(8), np.int64)
    places = np.frombuffer(frame, np.int64)
    words = np.zeros(2, np.int64)  # a failure, where all memory begins
    prepare()
    failure = words.ctypes.data
    given = places.ctypes.data, failure + WORD, packed.ctypes.data, worker, failure
    assert plan.state is not None  # noqa: S101  # it is of a program
    try:
        code = sweep(plan.address, part, *given, plan.state.ctypes.data + HALT)
    except SystemError as error:
        return error.__cause__ or error
    return native_error(code, int(words[0])) if code else None


def state_words(parts: int) -> int:
    """How many words the state of a run takes."""
    return (PART + LINE * parts) // WORD


def begin(state: Array, times: int, *, first: int, spin: int) -> None:
    """Make a state ready for so many sweeps; `first`: the number of the first."""
    state[:] = 0
    state[TIMES // WORD] = times
    state[FIRST // WORD] = first
    state[SPIN // WORD] = spin
    state[POLLS // WORD] = not atomic_words.waits_by_futex()


def halt(state: Array) -> None:
    """Let nobody who runs its share from Python go on."""
    state[HALT // WORD] = 1


def set_goal(state: Array, phases: int) -> None:
    """Let the next run go so far."""
    state[GOAL // WORD] = phases


def set_alone(state: Array, alone: bool) -> None:
    """Let the worker of the first part do all of the next run, or let each do its own."""
    state[ALONE // WORD] = alone


def ended(state: Array) -> int:
    """Phases that all parts have ended."""
    return int(_ended(state).min())


def at_work(state: Array, part: int) -> int:
    """The part that the worker of this one is about: who does all takes them in turn."""
    return int(_ended(state).argmin()) if state[ALONE // WORD] else part


def _ended(state: Array) -> Array:
    return state[(PART + ENDED) // WORD :: LINE // WORD]


_functions: list[Any] = []


def _jitted(function: Callable[..., Any]) -> Any:
    dispatcher = jitted(function)
    _functions.append(dispatcher)
    return dispatcher


def prepare() -> None:
    """Have all of this compiled, once in a process."""
    if not sweep.overloads:
        call_compiler(_compile)


@functools.cache
def _entry() -> int:
    """The address of `sweep` as a trampoline: ``i32 (program, frame, bases, values, part, ...)``.

    What follows are `halt`, a number that means nothing, the worker's, and `failure`.
    """
    prepare()
    compiled = next(iter(sweep.overloads.values()))
    types = compiled.signature.args
    found = address_of(sweep, types)
    assert not isinstance(found, str)  # noqa: S101  # it was compiled a line above

    def write(builder: Any) -> None:
        plan, frame, bases, values, part, halt, _, worker, failure = builder.function.args
        convention = cpu_target.target_context.call_conv
        kind = convention.get_function_type(compiled.signature.return_type, types)
        code = builder.inttoptr(ir.Constant(ir.IntType(64), found[1]), kind.as_pointer())
        given = [plan, part, frame, bases, values, worker, failure, halt]
        _, result = convention.call_function(
            builder, code, compiled.signature.return_type, types, given
        )
        builder.ret(builder.trunc(result, ir.IntType(32)))

    return compile_function("sweeps", ir.FunctionType(ir.IntType(32), [ir.IntType(64)] * 9), write)


def _compile() -> None:
    refresh()
    atomic_words.compile_all(_functions)


_poll = _jitted(atomic_words.poll)


@_jitted
def _sleep(state: int, place: int, phase: int) -> None:
    """Sleep until a part has ended a phase, for `NAP` at most."""
    seen = load(place + ENDED)
    if seen >= phase:
        return
    if load(state + POLLS) != 0:
        _poll(place + ENDED, seen, NAP)
        return
    # As with the doorbell: either the sleeper is counted before the other looks for sleepers, or
    # the word has changed before the kernel compares it.
    add(place + SLEEPERS, 1)
    wait(place + ENDED, seen, NAP)
    add(place + SLEEPERS, -1)


@_jitted
def _wait_for(state: int, part: int, phase: int, stop: int) -> Any:
    """Wait until a part has ended so many phases; whether it has."""
    place = state + PART + LINE * part
    spin = load(state + SPIN)
    iteration = naps = 0
    while load(place + ENDED) < phase:
        if load(stop) != 0:
            return False
        if iteration < spin:
            iteration += 1
            if iteration % COURTESY == 0:
                give_way()
            else:
                relax()
        elif naps < PATIENCE:
            naps += 1
            _sleep(state, place, phase)
        else:
            return False
    return True


@_jitted
def _wait_for_others(program: int, part: int, phase: int, stop: int) -> Any:
    """Wait until a part may begin a phase; whether it may."""
    state, parts = load(program + STATE), -load(program + PARTS)
    first, last = 0, parts
    if load(program + BLOCK) != 0:
        first, last = max(0, part - 1), min(parts, part + 2)
    for other in range(first, last):
        if other != part and not _wait_for(state, other, phase, stop):
            return False
    return True


@_jitted
def _step(
    program: int,
    level: int,
    start: int,
    stop: int,
    frame: int,
    bases: int,
    values: int,
    worker: int,
    failure: int,
) -> Any:
    """Call the kernel of a level on a range; 0, or the code of what it raised."""
    links = load(program + LINKS)
    level += links * load(load(program + STATE) + FIRST)
    place = program + CALLS + CALL * (level % (2 * links))
    block, arrays = load(place + WORD), frame + load(place + 2 * WORD)
    number = level // links
    return call(load(place), block, arrays, bases, values, start, stop, number, worker, failure)


@_jitted
def _plain(
    program: int,
    part: int,
    phase: int,
    frame: int,
    bases: int,
    values: int,
    worker: int,
    failure: int,
    halt: int,
) -> Any:
    """A phase of one level, in slabs, so that it can be stopped."""
    edges = program + CALLS + 2 * CALL * load(program + LINKS)
    at, end = load(edges + WORD * part), load(edges + WORD * (part + 1))
    slab = load(program + SLAB)
    while at < end:
        if load(halt) != 0:
            return STOPPED
        code = _step(program, phase, at, min(end, at + slab), frame, bases, values, worker, failure)
        if code != 0:
            return code
        at += slab
    return 0


@_jitted
def _blocked(
    program: int,
    part: int,
    phase: int,
    frame: int,
    bases: int,
    values: int,
    worker: int,
    failure: int,
    halt: int,
) -> Any:
    """A phase of a block of time: a trapezoid, or the gap behind it. See `Schedule.steps`."""
    links, sweeps, slab = load(program + LINKS), load(program + BLOCK), load(program + SLAB)
    parts, gap = -load(program + PARTS), phase % 2
    edges = program + CALLS + 2 * CALL * links
    slopes = edges + WORD * (parts + 1)
    begin, end = load(edges + WORD * part), load(edges + WORD * (part + 1))
    inner, left_most = part + 1 < parts, part == 0
    if gap != 0 and not inner:
        return 0
    first = phase // 2 * sweeps
    levels = min(sweeps, load(load(program + STATE) + TIMES) - first) * links
    last = slopes + 2 * WORD * (levels - 1)
    at, top = end if gap != 0 else begin, end
    if gap != 0:
        top = end + load(last) + load(last + WORD)
    elif not inner:
        top = end + load(last + WORD)
    while at < top:
        for level in range(levels):
            left = load(slopes + 2 * WORD * level)
            right = load(slopes + 2 * WORD * level + WORD)
            if gap != 0:
                low, high = end - right, end + left
            else:
                low = begin if left_most else begin + left
                high = end - right if inner else end
            start, stop = max(low, at - right), min(high, at - right + slab)
            if start < stop:
                if load(halt) != 0:
                    return STOPPED
                number = first * links + level
                code = _step(program, number, start, stop, frame, bases, values, worker, failure)
                if code != 0:
                    return code
        at += slab
    return 0


@_jitted
def _phase(
    program: int,
    part: int,
    phase: int,
    frame: int,
    bases: int,
    values: int,
    worker: int,
    failure: int,
    halt: int,
) -> Any:
    """Do what falls to a part in a phase, and tell those that wait for it; 0, or a code."""
    if load(program + BLOCK) != 0:
        code = _blocked(program, part, phase, frame, bases, values, worker, failure, halt)
    else:
        code = _plain(program, part, phase, frame, bases, values, worker, failure, halt)
    if code == 0:
        place = load(program + STATE) + PART + LINE * part
        store(place + ENDED, phase + 1)
        if load(place + SLEEPERS) != 0:
            wake_all(place + ENDED)
    return code


@_jitted
def _least(state: int, parts: int) -> Any:
    """Phases that all parts have ended: one that waited for too long may be behind the others."""
    least = load(state + PART + ENDED)
    for part in range(1, parts):
        least = min(least, load(state + PART + LINE * part + ENDED))
    return least


@_jitted
def _all_parts(
    program: int, frame: int, bases: int, values: int, worker: int, failure: int, halt: int
) -> Any:
    """Do what falls to all parts until the goal is reached, phase after phase; 0, or a code."""
    state, parts = load(program + STATE), -load(program + PARTS)
    phase, goal = _least(state, parts), load(state + GOAL)
    while phase < goal:
        for part in range(parts):
            if load(state + PART + LINE * part + ENDED) == phase:
                code = _phase(program, part, phase, frame, bases, values, worker, failure, halt)
                if code != 0:
                    return code
        phase += 1
    return 0


@_jitted
def sweep(
    program: int,
    part: int,
    frame: int,
    bases: int,
    values: int,
    worker: int,
    failure: int,
    halt: int,
) -> Any:
    """Do what falls to a part until the goal is reached; 0, or the code of what a kernel raised.

    It also returns 0 when the word at `halt` is not 0, and when it has waited for too long: how far
    it has come stands in the state.
    """
    state, code = load(program + STATE), 0
    if load(state + ALONE) != 0:
        if part == 0:
            code = _all_parts(program, frame, bases, values, worker, failure, halt)
        return 0 if code == STOPPED else code
    phase, goal = load(state + PART + LINE * part + ENDED), load(state + GOAL)
    while phase < goal and _wait_for_others(program, part, phase, halt):
        code = _phase(program, part, phase, frame, bases, values, worker, failure, halt)
        if code != 0:
            return 0 if code == STOPPED else code
        phase += 1
    return 0

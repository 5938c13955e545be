"""The words of a queue's slots, and every jitted function that touches them.

README.md, beside this file, has the states of a slot, who may change them, and why a process may
die at any instruction. The file is long because Numba inlines these functions into one another, and
its cache on disk knows a function by its file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from shmcompute.system import atomic_words
from shmcompute.system.atomic_words import (
    add,
    give_way,
    jitted,
    load,
    relax,
    store,
    swap,
    wait,
    wake,
    wake_all,
)
from shmcompute.system.compiling import call_compiler

WORD = 8  # bytes
LINE = 128  # two cache lines, which processors fetch in pairs: words of others stand elsewhere

LOCK = 0  # who has it
TICKET = 8  # the last one given
READY_FROM, READY_TO = 16, 24  # of the ring of published slots: next to be had, next to be put
FREE_FROM, FREE_TO = 32, 40  # of the ring of free ones
CLOSED = 48
ITEMS = LINE  # counts what may make a slot ready; who wants one sleeps on it
GETTERS = LINE + 8  # how many sleep there; the dead among them, too
SPACE = 2 * LINE  # the same for free slots
PUTTERS = 2 * LINE + 8
SLEEPERS = 8  # from a word to sleep on to how many do
SLOTS = 3 * LINE  # of each: its word, the one it had when it was taken, and a place in either ring

# A slot's word: 0 is free. Above 0: its ticket, doubled; odd if it holds None in place of an array.
# Below 0: minus its holder's token, doubled; odd if he is to publish it.
FREE = 0

NOTHING, BUSY, ENDED = -1, -2, -3  # in place of a slot's number
SPIN = 1000  # iterations before one sleeps, some tens of microseconds
TRIES = 200  # tries to get the lock, some microseconds, before asking what is the matter


def bytes_for(count: int) -> int:
    """Bytes of the words of so many slots."""
    return -(-(SLOTS + 4 * WORD * count) // LINE) * LINE


def _short(function: Callable[..., Any]) -> Any:
    return jitted(function, nogil=False)  # the GIL is let go of by nothing in here


@_short
def pause(iteration: int) -> None:
    """Spin once; now and then let others have this core."""
    if iteration % 32 == 0:
        give_way()
    else:
        relax()


@_short
def lock(base: int, me: int) -> Any:
    """Take the lock; whether it was to be had soon."""
    for iteration in range(1, TRIES):
        if load(base + LOCK) == 0 and swap(base + LOCK, 0, me):
            return True
        pause(iteration)
    return False


@_short
def old(base: int, count: int, slot: int) -> Any:
    """Where the word stands that a slot had when it was taken."""
    return base + SLOTS + WORD * (count + slot)


@_short
def ready(base: int, count: int, number: int) -> Any:
    """A place in the ring of published slots."""
    return base + SLOTS + WORD * (2 * count + number % count)


@_short
def free(base: int, count: int, number: int) -> Any:
    """A place in the ring of free slots."""
    return base + SLOTS + WORD * (3 * count + number % count)


@_short
def reserve(base: int, count: int, me: int) -> Any:
    """Take a free slot, to publish it."""
    if not lock(base, me):
        return BUSY
    slot = NOTHING
    first = load(base + FREE_FROM)
    if load(base + CLOSED) != 0:
        slot = ENDED
    elif first != load(base + FREE_TO):
        slot = load(free(base, count, first))
        store(base + SLOTS + WORD * slot, -2 * me - 1)
        store(base + FREE_FROM, first + 1)
    store(base + LOCK, 0)
    return slot


@_short
def publish(base: int, count: int, me: int, slot: int, none: int) -> Any:
    """Let others have a slot; how many sleep that want one."""
    if not lock(base, me):
        return BUSY
    ticket, last = load(base + TICKET) + 1, load(base + READY_TO)
    store(base + TICKET, ticket)
    store(base + SLOTS + WORD * slot, 2 * ticket + none)
    store(ready(base, count, last), slot)
    store(base + READY_TO, last + 1)
    add(base + ITEMS, 1)
    store(base + LOCK, 0)
    return load(base + GETTERS)


@_short
def take(base: int, count: int, me: int) -> Any:
    """Take the slot that was published first."""
    if not lock(base, me):
        return BUSY
    slot = NOTHING
    first = load(base + READY_FROM)
    if first != load(base + READY_TO):
        slot = load(ready(base, count, first))
        word = base + SLOTS + WORD * slot
        store(old(base, count, slot), load(word))
        store(word, -2 * me)
        store(base + READY_FROM, first + 1)
    elif load(base + CLOSED) != 0 and not awaited(base, count, me):
        slot = ENDED
    store(base + LOCK, 0)
    return slot


@_short
def awaited(base: int, count: int, me: int) -> Any:
    """Whether somebody holds a slot that he is to publish, or another process one to be read.

    That may be put back. What this process reads it does not wait for: the reader may be the one
    who asks. (Who asks while he reads, as another process does too, waits for that one.)
    """
    for slot in range(count):
        word = load(base + SLOTS + WORD * slot)
        if word < 0 and (word % 2 == 1 or -word // 2 != me):
            return True
    return False


@_short
def give_back(base: int, count: int, me: int, slot: int) -> Any:
    """Make a slot free; how many sleep that want one."""
    if not lock(base, me):
        return BUSY
    last = load(base + FREE_TO)
    store(base + SLOTS + WORD * slot, FREE)
    store(free(base, count, last), slot)
    store(base + FREE_TO, last + 1)
    add(base + SPACE, 1)
    if load(base + CLOSED) != 0:
        add(base + ITEMS, 1)  # who waited for it to be published
    store(base + LOCK, 0)
    return load(base + PUTTERS)


@_short
def put_back(base: int, count: int, me: int, slot: int) -> Any:
    """Let others have a slot that was taken, in its old place; how many sleep that want one."""
    if not lock(base, me):
        return BUSY
    store(base + SLOTS + WORD * slot, load(old(base, count, slot)))
    rebuild(base, count)
    store(base + LOCK, 0)
    return load(base + GETTERS)


@_short
def reclaim(base: int, count: int, me: int, dead: int) -> Any:
    """Free the slots that a dead process held; how many."""
    if not lock(base, me):
        return BUSY
    freed = free_slots_of(base, count, dead)
    store(base + LOCK, 0)
    return freed


@_short
def seize(base: int, count: int, me: int, dead: int) -> Any:
    """Take the lock from a dead process and put all in order; 0 if somebody else did."""
    if not swap(base + LOCK, dead, me):
        return 0
    free_slots_of(base, count, dead)
    store(base + LOCK, 0)
    return 1


@_short
def close(base: int) -> None:
    """Let no more slots be reserved.

    Without the lock, which a process that was stopped may have. Who just reserves one has it before
    anybody can see that there are none, which takes the lock.
    """
    store(base + CLOSED, 1)
    add(base + ITEMS, 1)
    add(base + SPACE, 1)


@_short
def free_slots_of(base: int, count: int, dead: int) -> Any:
    """Free the slots of a dead process, under the lock; how many."""
    freed = 0
    for slot in range(count):
        word = base + SLOTS + WORD * slot
        held = load(word)
        if held < 0 and -held // 2 == dead:
            store(word, FREE)
            freed += 1
    rebuild(base, count)
    return freed


@_short
def rebuild(base: int, count: int) -> None:
    """Make the index anew, under the lock, from the words of the slots."""
    published, empty = 0, 0
    for slot in range(count):
        word = load(base + SLOTS + WORD * slot)
        if word > 0:
            store(ready(base, count, published), slot)
            published += 1
        elif word == FREE:
            store(free(base, count, empty), slot)
            empty += 1
    gap = published // 2
    while gap > 0:  # in the order of their tickets, by Shell's sort
        for place in range(gap, published):
            slot = load(ready(base, count, place))
            ticket = load(base + SLOTS + WORD * slot)
            at = place
            while at >= gap:
                other = load(ready(base, count, at - gap))
                if load(base + SLOTS + WORD * other) <= ticket:
                    break
                store(ready(base, count, at), other)
                at -= gap
            store(ready(base, count, at), slot)
        gap //= 2
    store(base + READY_FROM, 0)
    store(base + READY_TO, published)
    store(base + FREE_FROM, 0)
    store(base + FREE_TO, empty)
    add(base + ITEMS, 1)
    add(base + SPACE, 1)


@_short
def holder(base: int, count: int, slot: int) -> Any:
    """The first held slot from this one on: its holder's token (0: there is none), its number."""
    for number in range(slot, count):
        word = load(base + SLOTS + WORD * number)
        if word < 0:
            return -word // 2, number
    return 0, count


@_short
def word(address: int) -> Any:
    """What stands in a word."""
    return load(address)


poll = jitted(atomic_words.poll)


@jitted
def park(address: int, value: int, nanoseconds: int, polls: int) -> None:
    """Sleep until the word is no longer `value`, for so long at most; without the GIL.

    Not at once: to be woken takes longer than many a wait.
    """
    for iteration in range(1, SPIN):
        if load(address) != value:
            return
        pause(iteration)
    add(address + SLEEPERS, 1)
    if polls != 0:
        poll(address, value, nanoseconds)
    else:
        wait(address, value, nanoseconds)
    add(address + SLEEPERS, -1)


@_short
def wake_one(address: int) -> None:
    """Wake one of those who sleep on a word."""
    wake(address)


@_short
def wake_everybody(address: int) -> None:
    """Wake all who sleep on a word."""
    wake_all(address)


_GIVING_BACK = (word, publish, give_back, put_back, wake_one, wake_everybody)


def prepare() -> None:
    """Have all that gives a slot back compiled: at the interpreter's end that can't be done."""
    if not all(dispatcher.overloads for dispatcher in _GIVING_BACK):
        call_compiler(partial(atomic_words.compile_all, _GIVING_BACK))

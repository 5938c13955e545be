"""The control block: the words through which a caller and its workers speak.

Everything here is jitted and lets go of the GIL. README.md, beside this file, says who may write
which word, and why no wake-up is lost. The file is long because it holds every function that
touches these words: Numba inlines them into one another, and its cache on disk knows a function by
its file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shmcompute.chunking import FRAME_WORDS, VALUE, VALUES
from shmcompute.kernels import refresh
from shmcompute.system import atomic_words
from shmcompute.system.atomic_words import (
    add,
    call,
    call_on_block,
    core,
    give_way,
    jitted,
    load,
    now,
    put,
    relax,
    store,
    swap,
    wait,
    wake,
)
from shmcompute.system.compiling import call_compiler

WORD = 8  # bytes
LINE = 128  # two cache lines, which processors fetch in pairs: words of others stand elsewhere

# Of the caller
PENDING = 0  # workers that have not answered yet; the caller sleeps on it
CALLER_SLEEPS = 8
STOP = 16  # not 0: take no more chunks
CROWDED = 24  # successive runs whose answers came when the caller gave way
POLLS = 32  # not 0: who waits polls, for there is no futex
RUN = 40  # not 0: each chunk of this run is recorded, under this number
# Of all
CURSOR = LINE  # the next chunk, where chunks are not dealt before
VALUES_AT = 2 * LINE  # 16 bytes each
FRAME_AT = VALUES_AT + VALUE * VALUES  # where the arrays are: see `chunking.frame`
SLOTS_AT = FRAME_AT + WORD * FRAME_WORDS
# A slot, one for each worker and the last for the caller: a line that the caller writes,
ASKED = 0  # how often it was rung for; the worker sleeps on it
PLAN = 8  # the number of a plan, or NOTE
FIRST = 16  # the worker's first chunk,
STEP = 24  # and how far it is to its next; 0: they are to be had at the cursor
RING = 32  # where its records are, from the control block on
READ = 40  # records that the caller has read
# and one that the worker writes.
ANSWERED = LINE  # rings that it has answered
SLEEPS = LINE + 8
STATUS = LINE + 16  # FINE, or else: Numba's code of what the kernel raised, or RAISED by Python
CURRENT = LINE + 24  # the chunk that it writes, NONE, or TAKING: one that it may have taken
DONE = LINE + 32  # chunks that it has done in this run
FAILURE = LINE + 40  # where Numba described what the kernel raised
COMPILED = LINE + 48  # how often it had to compile
CLAIMED = LINE + 56  # the task after the last that it has begun; NONE: it is to begin no more
CORE = LINE + 64  # where it went to sleep
RECORDED = LINE + 72  # records that it has written
LOST = LINE + 80  # records for which there was no room
SLOT = 2 * LINE
# Records of a slot: a ring that its worker writes and the caller reads, whenever it likes. Nobody
# touches that memory, and so there is none, unless somebody traces.
RECORDS = 1 << 13
RECORD = 4 * WORD  # the run's number, the chunk's, when it began and, or 0, when it ended

NOTE = 0  # "read what stands in your pipe"
NONE, TAKING = -1, -2
FINE, RAISED = 0, 1 << 32
LOW = (1 << 32) - 1  # the half of PENDING that counts; the other half numbers the runs

# A native plan, as machine code sees it
LINKS = 0  # kernels that each chunk goes through
# Of each: its trampoline, the block of its arguments, and where in the frame its arrays begin. Then
# come the edges of chunks.
FIRST_LINK = 8
LINK = 3 * WORD
# Or, where LINKS is below 0, a plan whose chunks are parts with a way of their own:
WAY = 8  # the address of what goes it; see `kernels.sweeping`

# A rule of chunks, with which the frame begins,
COUNT, START, LENGTH, SIZE = 0, 8, 16, 24
# and, in two dimensions, the band of blocks (see `chunking.grid`), the rule of rows, of columns
BAND, ROWS, COLUMNS = FRAME_AT + 32, FRAME_AT + 40, FRAME_AT + 72

# ns within which a worker that was woken should have begun: in a virtual machine an idle core alone
# takes half as long to come back.
SOON = 500_000
COURTESY = 32  # iterations of spinning, about a microsecond, between giving way
# So many successive runs whose answers came just when the caller gave way: the workers must be on
# its own core, where they were woken, and the scheduler may leave them there for long.
CROWD = 8

PLANS = 4096  # places in a table of native plans: number and address of each, by number


_functions: list[Any] = []


def _jitted(function: Callable[..., Any], *, nogil: bool = True) -> Any:
    dispatcher = jitted(function, nogil=nogil)
    _functions.append(dispatcher)
    return dispatcher


def prepare() -> None:
    """Have everything here compiled, once in a process; else the first calls would wait for it."""
    if not prepared():
        call_compiler(_compile)


def prepared() -> bool:
    """Whether this process has all of it compiled."""
    return bool(_functions[-1].overloads)


def _compile() -> None:
    refresh()
    atomic_words.compile_all(_functions)


def ring_at(workers: int, number: int) -> int:
    """Where the records of a slot are, from the control block on."""
    return SLOTS_AT + (workers + 1) * SLOT + number * RECORDS * RECORD


def bytes_for(workers: int) -> int:
    """Bytes of a control block for so many workers and the caller."""
    return ring_at(workers, workers + 1)


poll = _jitted(atomic_words.poll)


@_jitted
def sleep(control: int, address: int, value: int, nanoseconds: int) -> None:
    """Sleep until a word is not `value`, for so long at most if `nanoseconds` is positive.

    It may end earlier: look, and sleep again.
    """
    if load(control + POLLS) != 0:
        poll(address, value, nanoseconds)
    else:
        wait(address, value, nanoseconds)


@_jitted
def pause(iteration: int) -> None:
    """Spin once. The scheduler wakes a sleeper where its waker runs, so now and then give way."""
    if iteration % COURTESY == 0:
        give_way()
    else:
        relax()


@_jitted
def take(control: int, slot: int, number: int) -> Any:
    """The chunk to do next where `number` was the last (NONE: none was); NONE to do no more.

    What was the last is done.
    """
    step = load(slot + STEP)
    if number != NONE:
        store(slot + CURRENT, NONE)
        store(slot + DONE, load(slot + DONE) + 1)
    if load(control + STOP) != 0:
        return NONE
    if step == 0:
        store(slot + CURRENT, TAKING)
        number = add(control + CURSOR, 1)
    elif number == NONE:
        number = load(slot + FIRST)
    else:
        number += step
    store(slot + CURRENT, number)
    return number


@_jitted
def fail(control: int, slot: int, code: int) -> None:
    """Say that this worker has failed: all are to stop."""
    store(slot + STATUS, code)
    store(control + STOP, 1)


@_jitted
def record_at(control: int, slot: int, number: int) -> Any:
    """Where the record of that number is: all are counted, and have places in turn."""
    return control + load(slot + RING) + RECORD * (number % RECORDS)


@_jitted
def begin(control: int, slot: int, run: int, number: int) -> None:
    """Record that a chunk begins, if there is room for a record."""
    recorded = load(slot + RECORDED)
    if recorded - load(slot + READ) < RECORDS:
        record = record_at(control, slot, recorded)
        put(record, run)
        put(record + WORD, number)
        put(record + 3 * WORD, 0)
        put(record + 2 * WORD, now())


@_jitted
def end(control: int, slot: int) -> None:
    """Record that it has ended: the caller may read that from now on."""
    recorded = load(slot + RECORDED)
    record = record_at(control, slot, recorded)
    if load(record + 3 * WORD) != 0:  # one that is not read yet: there was no room
        put(slot + LOST, load(slot + LOST) + 1)
    else:
        put(record + 3 * WORD, now())
        store(slot + RECORDED, recorded + 1)


@_jitted
def note(control: int, slot: int, run: int, number: int, began: int) -> None:
    """Record what has ended just now, before what may have begun and goes on: that moves on."""
    recorded = load(slot + RECORDED)
    if recorded + 1 - load(slot + READ) >= RECORDS:
        put(slot + LOST, load(slot + LOST) + 1)
        return
    record, following = record_at(control, slot, recorded), record_at(control, slot, recorded + 1)
    for offset in range(0, RECORD, WORD):
        put(following + offset, load(record + offset))
    put(record, run)
    put(record + WORD, number)
    put(record + 2 * WORD, began)
    put(record + 3 * WORD, now())
    store(slot + RECORDED, recorded + 1)


@_jitted
def edge(rule: int, edges: int, number: int) -> Any:
    """Where the chunk of that number starts, and the one before it ends: see `Chunks`."""
    size = load(rule + SIZE)
    if size > 0:
        return load(rule + START) + min(number * size, load(rule + LENGTH))
    if size == 0:
        return load(rule + START) + load(rule + LENGTH) * number // load(rule + COUNT)
    return load(edges + WORD * number)


@_jitted
def share_of_sweeps(control: int, slot: int, plan: int, bases: int) -> Any:
    """Do what falls to this slot of a plan that repeats itself: the parts that are its own."""
    worker, frame = (slot - control - SLOTS_AT) // SLOT, control + FRAME_AT
    run = load(control + RUN)
    number = take(control, slot, NONE)
    while 0 <= number < -load(plan + LINKS):
        if run != 0:
            begin(control, slot, run, number)
        code = call(
            load(plan + WAY),
            plan,
            frame,
            bases,
            control + VALUES_AT,
            number,
            control + STOP,
            0,
            worker,
            slot + FAILURE,
        )
        if run != 0:
            end(control, slot)
        if code != 0:
            fail(control, slot, code)
            return code
        number = take(control, slot, number)
    store(slot + CURRENT, NONE)
    return 0


@_jitted
def pass_through(
    control: int,
    slot: int,
    plan: int,
    links: int,
    bases: int,
    start: int,
    stop: int,
    number: int,
    worker: int,
) -> Any:
    """Have a chunk go through all links; 0, or the code of what a kernel raised."""
    link = plan + FIRST_LINK
    for _ in range(links):
        block, frame = load(link + WORD), control + FRAME_AT + load(link + 2 * WORD)
        code = call(
            load(link),
            block,
            frame,
            bases,
            control + VALUES_AT,
            start,
            stop,
            number,
            worker,
            slot + FAILURE,
        )
        if code != 0:
            return code
        link += LINK
    return 0


@_jitted
def column_in_band(position: int, rows: int, columns: int, band: int) -> Any:
    """The row and column of what is dealt so late, in bands of rows: see `chunking.grid`."""
    first = position // (band * columns) * band
    within, height = position - first * columns, min(band, rows - first)
    return first + within % height, within // height


@_jitted
def place_in_grid(position: int, rows: int, columns: int, band: int) -> Any:
    """The row and column of the block that is dealt so late."""
    if band > 0:
        return column_in_band(position, rows, columns, band)
    column, row = column_in_band(position, columns, rows, -band)
    return row, column


@_jitted
def share_of_blocks(control: int, slot: int, plan: int, bases: int) -> Any:
    """Do what falls to this slot of a plan whose chunks are blocks in two dimensions."""
    count, links = load(control + FRAME_AT + COUNT), load(plan + LINKS)
    rows, columns = load(control + ROWS + COUNT), load(control + COLUMNS + COUNT)
    band, worker = load(control + BAND), (slot - control - SLOTS_AT) // SLOT
    edges = plan + FIRST_LINK + LINK * links
    edges2 = edges + WORD * (rows + 1)
    run = load(control + RUN)
    position = take(control, slot, NONE)
    while 0 <= position < count:
        row, column = place_in_grid(position, rows, columns, band)
        start, stop = edge(control + ROWS, edges, row), edge(control + ROWS, edges, row + 1)
        start2 = edge(control + COLUMNS, edges2, column)
        stop2 = edge(control + COLUMNS, edges2, column + 1)
        code, link, number = 0, plan + FIRST_LINK, row * columns + column
        if run != 0:
            begin(control, slot, run, position)
        for _ in range(links):
            frame = control + FRAME_AT + load(link + 2 * WORD)
            code = call_on_block(
                load(link), load(link + WORD), frame, bases, control + VALUES_AT,
                start, stop, start2, stop2, number, worker, slot + FAILURE,
            )  # fmt: skip
            if code != 0:
                break
            link += LINK
        if run != 0:
            end(control, slot)
        if code != 0:
            fail(control, slot, code)
            return code
        position = take(control, slot, position)
    store(slot + CURRENT, NONE)
    return 0


@_jitted
def share(control: int, slot: int, plan: int, bases: int) -> Any:
    """Do what falls to this slot; 0, or the code of what a kernel raised, which stops all."""
    rule = control + FRAME_AT
    count, links = load(rule + COUNT), load(plan + LINKS)
    if links < 0:
        return share_of_sweeps(control, slot, plan, bases)
    if load(control + BAND) != 0:
        return share_of_blocks(control, slot, plan, bases)
    edges = plan + FIRST_LINK + LINK * links
    worker = (slot - control - SLOTS_AT) // SLOT
    run = load(control + RUN)
    number = take(control, slot, NONE)
    while 0 <= number < count:
        if run != 0:
            begin(control, slot, run, number)
        start, stop = edge(rule, edges, number), edge(rule, edges, number + 1)
        code = pass_through(control, slot, plan, links, bases, start, stop, number, worker)
        if run != 0:
            end(control, slot)
        if code != 0:
            fail(control, slot, code)
            return code
        number = take(control, slot, number)
    store(slot + CURRENT, NONE)
    return 0


@_jitted
def claim(slot: int, number: int) -> Any:
    """Whether a worker may begin that task: it is its next, and was not taken back."""
    return swap(slot + CLAIMED, number, number + 1)


@_jitted
def recall(slot: int) -> Any:
    """Have a worker begin no more tasks; the one after the last that it has begun."""
    claimed = load(slot + CLAIMED)
    while not swap(slot + CLAIMED, claimed, NONE):
        claimed = load(slot + CLAIMED)
    return claimed


@_jitted
def answer(control: int, slot: int) -> None:
    """All of a ring is done and this worker writes no more."""
    note = load(slot + PLAN) == NOTE
    pending = load(control + PENDING)  # of this run: no other one begins before the next line
    store(slot + ANSWERED, load(slot + ASKED))
    # By now another run may have begun, if this one was given up: that is not to be counted down.
    run = pending >> 32
    while not note and pending >> 32 == run:
        if swap(control + PENDING, pending, pending - 1):
            if pending & LOW == 1 and load(control + CALLER_SLEEPS) != 0:
                wake(control + PENDING)
            return
        pending = load(control + PENDING)


@_jitted
def serve(control: int, slot: int, table: int, bases: int, spin: int) -> Any:
    """Wait for rings and answer them, for as long as the table has their plans.

    Returns the code of what a kernel raised, or 0: there is a ring that is Python's to answer.
    """
    while True:
        answered = load(slot + ANSWERED)
        iterations = 0
        while load(slot + ASKED) == answered:
            if iterations < spin:
                iterations += 1
                pause(iterations)
                continue
            store(slot + CORE, core())
            store(slot + SLEEPS, 1)
            sleep(control, slot + ASKED, answered, 0)
            store(slot + SLEEPS, 0)
        plan = load(slot + PLAN)
        place = table + 2 * WORD * (plan % PLANS)
        if plan == NOTE or load(place) != plan:
            return 0
        code = share(control, slot, load(place + WORD), bases)
        if code != 0:
            return code
        answer(control, slot)


@_jitted
def assign(slot: int, first: int, step: int) -> None:
    """What of a run falls to a slot."""
    store(slot + FIRST, first)
    store(slot + STEP, step)
    store(slot + STATUS, FINE)
    store(slot + DONE, 0)
    store(slot + CURRENT, NONE)


@_jitted
def ask(slot: int, plan: int) -> None:
    """Ring for one worker that may be awake."""
    store(slot + PLAN, plan)
    add(slot + ASKED, 1)


@_jitted
def ring_one(slot: int, plan: int) -> None:
    """Ring for one worker."""
    ask(slot, plan)
    if load(slot + SLEEPS) != 0:
        wake(slot + ASKED)


@_jitted
def wake_up(slots: int, count: int) -> None:
    """Wake those of the first `count` workers that sleep.

    Who sleeps on the caller's own core comes last: awake, it may have that core at once, and the
    caller would wake the others milliseconds later.
    """
    here = core()
    for last in range(2):
        for number in range(count):
            slot = slots + SLOT * number
            if load(slot + SLEEPS) != 0 and (load(slot + CORE) == here) == last:
                wake(slot + ASKED)


@_jitted
def ring(control: int, slots: int, plan: int, count: int, own: int, step: int) -> None:
    """Have the first `count` workers run a plan, and assign its share to the slot `own` (or 0)."""
    store(control + STOP, 0)
    store(control + CURSOR, 0)
    store(control + PENDING, ((load(control + PENDING) >> 32) + 1) << 32 | count)
    first = 0
    if own != 0:
        assign(own, 0, step)
        first = 1
    for number in range(count):
        slot = slots + SLOT * number
        assign(slot, first + number, step)
        ask(slot, plan)
    wake_up(slots, count)


@_jitted
def silent(slots: int, count: int) -> Any:
    """Whether the first `count` workers have answered all, and told all that kernels raised."""
    for number in range(count):
        slot = slots + SLOT * number
        if load(slot + ASKED) != load(slot + ANSWERED) or load(slot + STATUS) != FINE:
            return False
    return True


@_jitted
def finished(control: int, spin: int, nanoseconds: int) -> Any:
    """Wait until all have answered, for a while at most; whether they have."""
    crowded = load(control + CROWDED)
    for iteration in range(1, spin + 1):
        if load(control + PENDING) & LOW == 0:
            gave_way = iteration > 1 and iteration % COURTESY == 1
            store(control + CROWDED, crowded + 1 if gave_way else 0)
            return True
        pause(iteration)
    store(control + CALLER_SLEEPS, 1)
    pending = load(control + PENDING)
    if pending & LOW != 0:
        sleep(control, control + PENDING, pending, nanoseconds)
    store(control + CALLER_SLEEPS, 0)
    return load(control + PENDING) & LOW == 0


@_jitted
def settle(control: int) -> None:
    """Wait until all have answered, however long that takes."""
    while load(control + PENDING) & LOW != 0:
        finished(control, 0, 0)


@_jitted
def run_alone(control: int, bases: int, own: int, native: int) -> Any:
    """A whole run by the slot `own`, where there are no others; whether all is well."""
    store(control + STOP, 0)
    store(control + CURSOR, 0)
    assign(own, 0, 1)
    return share(control, own, native, bases) == 0


def _with_gil(control: int, bases: int, own: int, native: int) -> Any:
    return run_alone(control, bases, own, native)


run_with_gil = _jitted(_with_gil, nogil=False)


@_jitted
def run(
    control: int,
    slots: int,
    bases: int,
    spin: int,
    plan: int,
    count: int,
    own: int,
    native: int,
    step: int,
) -> Any:
    """A whole run in one go; False if it is not over yet, not all is well, or it is too crowded."""
    ring(control, slots, plan, count, own, step)
    if native != 0:
        share(control, own, native, bases)
    over = finished(control, spin, SOON)
    return over and load(control + STOP) == 0 and load(control + CROWDED) < CROWD

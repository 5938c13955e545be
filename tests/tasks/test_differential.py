"""Random programs of tasks: a pool does what the standard library's executor does.

The oracle of worker processes is `ProcessPoolExecutor` with the same start method, that of threads
and of the serial backend `ThreadPoolExecutor`. An outcome is what a task returned or raised, by
type, text, notes, cause and attributes. What may differ, for a reason:

- What pickle refuses and cloudpickle takes (lambdas, closures) is not drawn.
- A worker that dies costs its own task here, and the executor there. None is drawn.
- The standard library's processes swap the bytes of foreign order; ours leave them.
- The standard library's threads have no chunks, so none are drawn there.
- On threads the state of an object is everybody's, in whatever order tasks come: none is drawn.
"""

from __future__ import annotations

import decimal
import functools
import multiprocessing
import operator
import os
import random
from concurrent import futures

import numpy as np
import pytest


class OddError(ValueError):
    """An exception with arguments and attributes of its own."""

    def __init__(self, code, *, hint=None):
        super().__init__(code, "odd")
        self.code = code
        self.hint = hint

    def __reduce__(self):
        return functools.partial(OddError, hint=self.hint), (self.code,)


class Stateful:
    """Its state is not to be seen by other tasks."""

    shared = 0

    def __init__(self, start=0):
        self.count = start

    def add(self, n):
        self.count += n
        return self.count

    def __call__(self, n):
        return self.add(n)

    @classmethod
    def named(cls, n):
        return f"{cls.__name__} {n}"

    @staticmethod
    def double(n):
        return 2 * n


def fails(n):
    """Each number has another way to fail; most have none."""
    match n % 9:
        case 0:
            raise OddError(n, hint="zero")
        case 1:
            error = KeyError(n)
            error.add_note(f"noted {n}")
            raise error
        case 2:
            raise RuntimeError("outer") from ValueError("inner")
        case 3:
            return next(iter(()))
        case 4:
            raise ExceptionGroup("several", [ValueError(n), TypeError(n)])
        case 5:
            raise OSError(2, "no such", "file")
        case 6:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")
    return n


def environment(name):
    return os.environ.get(name), os.getcwd()


def precision(n):
    with decimal.localcontext() as ctx:
        ctx.prec = n % 20 + 1
        return str(decimal.Decimal(1) / 7)


def default_precision(_):
    return str(decimal.Decimal(1) / 7), np.geterr()["divide"]


def array(n):
    values = np.arange(n % 7).astype([">f8", "i2", "U3", "?", "M8[s]"][n % 5])
    return values[::-1] if n % 2 else values


def keywords(*args, **kwargs):
    return args, sorted(kwargs.items())


def mutates(items):
    items.append(len(items))
    return items


ONE = [
    abs, str, fails, environment, precision, default_precision, array, keywords, operator.neg,
    functools.partial(pow, 2), Stateful.named, Stateful.double, range, bytes,
    [10, 20, 30].__getitem__,
]  # fmt: skip
PRIVATE = [Stateful().add, Stateful(5), np.random.default_rng(3).normal, mutates]
TWO = [operator.add, operator.floordiv, pow, keywords, divmod, operator.getitem, max]


def draw(rng, processes):
    """A step of a program: how, function, iterables, chunksize."""
    how = rng.choice(["submit", "submit", "map", "map", "keywords"])
    chunksize = rng.choice([1, 2, 100]) if processes else 1
    count = rng.choice([0, 1, 2, 5, 9])
    numbers = [rng.randint(0, 12) for _ in range(count + 2)]
    if rng.random() < 0.3:
        columns = [numbers, [rng.randint(0, 3) for _ in range(count)]]
        return how, rng.choice(TWO), columns, chunksize
    function = rng.choice([*ONE, *PRIVATE] if processes else ONE)
    if function is mutates:
        return how, function, [[[n] for n in numbers]], 1
    # In a chunk tasks share their function with the standard library, not with us.
    return how, function, [numbers], 1 if function in PRIVATE else chunksize


def outcome(get):
    """What comes of a task, to be compared."""
    try:
        value = get()
    except Exception as error:  # noqa: BLE001  # whatever it is
        return described(error)
    if isinstance(value, np.ndarray):
        return value.dtype.newbyteorder("=").str, value.shape, value.tolist()
    return type(value), value


def described(error):
    if error is None:
        return None
    parts = getattr(error, "exceptions", ())
    state = {k: v for k, v in vars(error).items() if k != "__notes__"}
    notes = getattr(error, "__notes__", [])
    cause = type(error.__cause__).__name__
    parts = list(map(described, parts))
    return type(error), str(error), error.args[:1], state, notes, cause, parts


def run(executor, program):
    outcomes = []
    for how, function, columns, chunksize in program:
        if how == "map":
            results = executor.map(function, *columns, chunksize=chunksize)
            got = [outcome(functools.partial(next, results)) for _ in range(len(columns[-1]) + 1)]
            # After an error a generator is at its end, and says StopIteration.
        else:
            extra = {"hint": 1} if how == "keywords" and function is keywords else {}
            tasks = [
                executor.submit(function, *args, **extra) for args in zip(*columns, strict=False)
            ]
            got = [outcome(task.result) for task in tasks]
            assert all(task.done() and not task.cancelled() for task in tasks)
        outcomes.append((how, got))
    return outcomes


@pytest.fixture(scope="module")
def oracles():
    """Executors of the standard library, each started when a test first asks for it."""
    made = {}

    def oracle(name):
        method = name if name in multiprocessing.get_all_start_methods() else "forkserver"
        if name in ("threads", "serial"):
            kind, method = futures.ThreadPoolExecutor, "threads"
        else:
            context = multiprocessing.get_context(method)
            kind = functools.partial(futures.ProcessPoolExecutor, mp_context=context)
        if method not in made:
            made[method] = kind(2)
        return made[method]

    yield oracle
    for executor in made.values():
        executor.shutdown()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["fork", "forkserver", "threads", "serial"])
def test_a_random_program_has_the_outcomes_of_the_standard_library(pools, oracles, name, seed):
    rng = random.Random(seed)
    program = [draw(rng, name not in ("threads", "serial")) for _ in range(12)]
    expected = run(oracles(name), program)
    for step, ours, theirs in zip(program, run(pools[name], program), expected, strict=True):
        assert ours == theirs, step

"""Topics of many short calls: plans and ranges in turn, and what goes from one step to the next."""

from contextlib import ExitStack
from functools import partial

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks import kernels
from benchmarks.bars.speed import POOLS, WORKERS
from benchmarks.bars.turns import ratio, turns

MANY = 200
SIDE = 1000
RUNS_HERE = ("processes, caller_runs", "threads")


@nb.njit
def add_one(first, last, x):
    for i in range(first, last):
        x[i] += 1.0


@nb.njit
def align(first, last, table, a, b, step):
    """Smith and Waterman's scores of the cells of a diagonal."""
    diagonal = step + 2
    for i in range(max(first, 1, diagonal - b.size), min(last, a.size + 1, diagonal)):
        j = diagonal - i
        score = table[i - 1, j - 1] + (2 if a[i - 1] == b[j - 1] else -1)
        table[i, j] = max(score, table[i - 1, j] - 1, table[i, j - 1] - 1, 0)


@nb.njit(parallel=True)
def align_prange(table, a, b):
    for diagonal in range(2, a.size + b.size + 1):
        low, high = max(1, diagonal - b.size), min(a.size + 1, diagonal)
        for i in nb.prange(low, high):
            j = diagonal - i
            score = table[i - 1, j - 1] + (2 if a[i - 1] == b[j - 1] else -1)
            table[i, j] = max(score, table[i - 1, j] - 1, table[i, j - 1] - 1, 0)


@nb.njit
def relax(first, last, u, step):
    """Gauss and Seidel's average in the cells of a diagonal."""
    diagonal = step + 2
    for i in range(max(first, diagonal - u.shape[1] + 2), min(last, diagonal)):
        j = diagonal - i
        u[i, j] = 0.25 * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1])


@nb.njit(parallel=True)
def relax_prange(u):
    side = u.shape[0]
    for diagonal in range(2, 2 * side - 3):
        for i in nb.prange(max(1, diagonal - side + 2), min(side - 1, diagonal)):
            j = diagonal - i
            u[i, j] = 0.25 * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1])


@nb.njit
def divide(first, last, a, column):
    """Cholesky: the column below its root. The diagonal keeps the root until all have read it."""
    root = np.sqrt(a[column, column])
    for i in range(column + 1 + first, a.shape[0], WORKERS):
        a[i, column] /= root


@nb.njit
def subtract(first, last, a, column):
    """Cholesky: what the column takes from those behind it; rows are dealt to workers in turn."""
    if first == 0:
        a[column, column] = np.sqrt(a[column, column])
    for i in range(column + 1 + first, a.shape[0], WORKERS):
        for j in range(column + 1, i + 1):
            a[i, j] -= a[i, column] * a[j, column]


@nb.njit(parallel=True)
def cholesky_prange(a):
    size = a.shape[0]
    for column in range(size):
        root = np.sqrt(a[column, column])
        a[column, column] = root
        for i in nb.prange(column + 1, size):
            a[i, column] /= root
        for worker in nb.prange(WORKERS):
            for i in range(column + 1 + worker, size, WORKERS):
                for j in range(column + 1, i + 1):
                    a[i, j] -= a[i, column] * a[j, column]


def turn_about():
    """200 plans, or one with 200 ranges, against one plan repeated; a view against its array."""
    for name, how in POOLS.items():
        with sc.Pool(WORKERS, **how) as pool, sc.SharedArray.zeros(1024) as array:
            plans = [
                sc.plan(kernels.stream, array.array[: 1024 - i], pool=pool) for i in range(MANY)
            ]
            over = sc.plan(add_one, range(1024), sc.shared(array), pool=pool)
            ways = {
                "one plan": partial(_call, [plans[0]] * MANY),
                "one plan over a range": partial(_call, [over] * MANY),
                "200 plans": partial(_call, plans),
                "200 ranges": lambda over=over: [over(range(i, 1024)) for i in range(MANY)],
                "parallel_for": lambda array=array, pool=pool: [
                    sc.parallel_for(add_one, i, 1024, sc.shared(array), pool=pool)
                    for i in range(MANY)
                ],
                "array": lambda array=array, pool=pool: [
                    sc.parallel_apply(kernels.stream, array, pool=pool) for _ in range(MANY)
                ],
                "view": lambda array=array, pool=pool: [
                    sc.parallel_apply(kernels.stream, array.array[1:-1], pool=pool)
                    for _ in range(MANY)
                ],
            }
            found = turns(ways, 5)
        yield ratio(f"200 plans in turn / one, {name}", found, "200 plans", "one plan", 1.3)
        yield ratio(
            f"one plan, 200 ranges / one, {name}", found, "200 ranges", "one plan over a range", 1.3
        )
        yield ratio(
            f"parallel_for, 200 ranges / apply, {name}", found, "parallel_for", "array", 1.3
        )
        yield ratio(f"apply to a view / to the array, {name}", found, "view", "array", 1.3)


def _call(plans):
    for plan in plans:
        plan()


def smith_waterman():
    """A wavefront: a sweep for each diagonal."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, (2, SIDE))
    table = np.zeros((SIDE + 1, SIDE + 1), np.int64)
    yield from _compared(
        f"Smith-Waterman, {SIDE}^2",
        align_prange,
        [table, a, b],
        lambda table, a, b, pool: sc.parallel_iterate(
            align,
            range(1, SIDE + 1),
            sc.shared(table),
            sc.whole(a),
            sc.whole(b),
            sc.sweep,
            times=2 * SIDE - 1,
            pool=pool,
        ),
    )


def gauss_seidel():
    """Gauss and Seidel's relaxation, diagonal after diagonal."""
    yield from _compared(
        f"Gauss-Seidel by diagonals, {SIDE}^2",
        relax_prange,
        [np.random.default_rng(0).random((SIDE, SIDE))],
        lambda u, pool: sc.parallel_iterate(
            relax,
            range(1, SIDE - 1),
            sc.shared(u),
            sc.sweep,
            times=2 * SIDE - 5,
            pool=pool,
        ),
    )


def cholesky():
    """A right-looking Cholesky decomposition: two kernels a column."""
    size = 512
    half = np.random.default_rng(0).random((size, size))
    matrix = half @ half.T + size * np.eye(size)
    yield from _compared(
        f"Cholesky by columns, {size}^2",
        cholesky_prange,
        [matrix],
        lambda a, pool: sc.parallel_iterate(
            [divide, subtract], range(WORKERS), sc.shared(a), sc.sweep, times=size, pool=pool
        ),
    )


def _compared(what, base, arrays, call):
    """Ours against Numba's, each from the same start; what comes of it must be equal."""
    written, *read = arrays
    nb.set_num_threads(WORKERS)
    with ExitStack() as opened:
        copy = written.copy()
        ways = {"prange": lambda: base(copy, *read)}
        before = {"prange": lambda: np.copyto(copy, written)}
        results = {"prange": copy}
        for name in RUNS_HERE:
            pool = opened.enter_context(sc.Pool(WORKERS, **POOLS[name])).ready()
            own = [opened.enter_context(sc.SharedArray(array)) for array in arrays]
            results[name] = own[0].array
            ways[name] = partial(call, *own, pool=pool)
            before[name] = partial(np.copyto, own[0].array, written)
        found = turns(ways, 9, before)
        for result in results.values():
            np.testing.assert_array_equal(result, copy)
    for name in RUNS_HERE:
        yield ratio(f"{what}, {name}", found, name, "prange", 1.3)

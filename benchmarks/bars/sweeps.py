"""Topics of sweeps: `parallel_iterate` against loops of Numba's prange, and against one core."""

from contextlib import ExitStack, contextmanager
from functools import partial

import numba as nb
import numpy as np

import shmcompute as sc
from benchmarks.bars.speed import POOLS, WORKERS
from benchmarks.bars.turns import ratio, turns

ROUNDS = 3


@nb.njit(nogil=True)
def heat_2d(new, old):
    for i in range(new.shape[0]):
        up, here, down = old[i], old[i + 1], old[i + 2]
        for j in range(1, new.shape[1] - 1):
            across = here[j - 1] + here[j + 1]
            new[i, j] = here[j] + 0.1 * (up[j] + down[j] + across - 4 * here[j])


@nb.njit(nogil=True)
def heat_3d(new, old):
    for i in range(new.shape[0]):
        up, here, down = old[i], old[i + 1], old[i + 2]
        for j in range(1, new.shape[1] - 1):
            for k in range(1, new.shape[2] - 1):
                beside = here[j - 1, k] + here[j + 1, k] + here[j, k - 1] + here[j, k + 1]
                around = up[j, k] + down[j, k] + beside
                new[i, j, k] = here[j, k] + 0.1 * (around - 6 * here[j, k])


@nb.njit(nogil=True)
def heat_1d(new, old):
    left, here, right = old[:-2], old[1:-1], old[2:]
    for i in range(new.size):
        new[i] = here[i] + 0.25 * (left[i] + right[i] - 2 * here[i])


def swept_in_blocks(step):
    """A loop of prange over blocks of rows, one a thread, that calls the step kernel."""

    @nb.njit(parallel=True)
    def swept(a, b, times):
        inner = a.shape[0] - 2
        for _ in range(times):
            for block in nb.prange(WORKERS):
                low, high = 1 + inner * block // WORKERS, 1 + inner * (block + 1) // WORKERS
                step(b[low:high], a[low - 1 : high + 1])
            a, b = b, a

    return swept


@nb.njit(parallel=True)
def heat_1d_prange(a, b, times):
    for _ in range(times):
        for i in nb.prange(1, a.size - 1):
            b[i] = a[i] + 0.25 * (a[i - 1] + a[i + 1] - 2 * a[i])
        a, b = b, a


@nb.njit
def heat_1d_alone(a, b, times):
    for _ in range(times):
        heat_1d(b[1:-1], a)
        a, b = b, a


@nb.njit(nogil=True)
def electric_y(ey, before, here):
    for i in range(ey.shape[0]):
        for j in range(ey.shape[1]):
            ey[i, j] -= 0.5 * (here[i, j] - before[i, j])


@nb.njit(nogil=True)
def electric_x(ex, hz):
    for i in range(ex.shape[0]):
        for j in range(1, ex.shape[1]):
            ex[i, j] -= 0.5 * (hz[i, j] - hz[i, j - 1])


@nb.njit(nogil=True)
def magnetic(hz, ex, here, after):
    for i in range(hz.shape[0]):
        for j in range(hz.shape[1] - 1):
            hz[i, j] -= 0.7 * (ex[i, j + 1] - ex[i, j] + after[i, j] - here[i, j])


@nb.njit(parallel=True)
def fdtd_prange(ex, ey, hz, times):
    rows = ex.shape[0]
    for _ in range(times):
        for block in nb.prange(WORKERS):
            low, high = rows * block // WORKERS, rows * (block + 1) // WORKERS
            electric_y(ey[low:high], hz[low:high], hz[low + 1 : high + 1])
        for block in nb.prange(WORKERS):
            low, high = rows * block // WORKERS, rows * (block + 1) // WORKERS
            electric_x(ex[low:high], hz[low + 1 : high + 1])
        for block in nb.prange(WORKERS):
            low, high = rows * block // WORKERS, rows * (block + 1) // WORKERS
            magnetic(hz[low + 1 : high + 1], ex[low:high], ey[low:high], ey[low + 1 : high + 1])


@contextmanager
def _iterated(arrays, call):
    """For each pool, by name: a call of `parallel_iterate` on arrays of its own."""
    with ExitStack() as opened:
        made = {}
        for name, how in POOLS.items():
            pool = opened.enter_context(sc.Pool(WORKERS, **how)).ready()
            own = [opened.enter_context(sc.SharedArray(array)) for array in arrays]
            made[name] = partial(call, *own, pool=pool)
        yield made


def _heat(step, times, old, new, *, pool):
    inner, seen = new[1:-1], sc.halo(old, 1)
    return sc.parallel_iterate(step, inner, seen, times=times, swap=(old, new), pool=pool)


def _compared(what, base, base_name, arrays, call, bar, rounds=ROUNDS):
    """Our ways against a base that works on copies of the same arrays."""
    copies = [array.copy() for array in arrays]
    nb.set_num_threads(WORKERS)
    with _iterated(arrays, call) as ours:
        theirs = partial(base, *copies)
        theirs()
        for way in ours.values():
            way()
        for way in ours.values():  # who did less than its work would be quick
            for array, copy in zip(way.args[-len(copies) :], copies, strict=True):
                np.testing.assert_array_equal(array.array, copy)
        found = turns({base_name: theirs, **ours}, rounds)
    for name in ours:
        yield ratio(f"{what}, {name}", found, name, base_name, bar)


def _heats(what, step, shape, times, bar):
    start = np.random.default_rng(0).random(shape)
    base = swept_in_blocks(step)
    yield from _compared(
        what,
        lambda a, b: base(a, b, times),
        "prange",
        [start, start],
        partial(_heat, step, times),
        bar,
    )


def heat_rows():
    """Heat in two dimensions, far larger than caches."""
    yield from _heats("heat 2-D, 4096^2, 100 sweeps", heat_2d, (4096, 4096), 100, 0.70)


def heat_planes():
    """Heat in three dimensions."""
    yield from _heats("heat 3-D, 256^3, 50 sweeps", heat_3d, (256, 256, 256), 50, 0.85)


def heat_line():
    """Sweeps so short that handing them out is what takes time."""
    start = np.random.default_rng(0).random(100_000)
    call = partial(_heat, heat_1d, 10_000)
    yield from _compared(
        "heat 1-D, 100 000, 10 000 sweeps",
        lambda a, b: heat_1d_prange(a, b, 10_000),
        "prange",
        [start, start],
        call,
        0.80,
    )


def jacobi():
    """The same, so small that one core alone is quicker than prange."""
    start = np.random.default_rng(0).random(30_000)
    call = partial(_heat, heat_1d, 400)
    yield from _compared(
        "Jacobi 1-D, 30 000, 400 sweeps",
        lambda a, b: heat_1d_alone(a, b, 400),
        "one core",
        [start, start],
        call,
        1.0,
        rounds=9,
    )


def _fdtd(ex, ey, hz, *, pool):
    chain = [
        (electric_y, ey[:-1], sc.read(hz[:-1]), sc.read(hz[1:])),
        (electric_x, ex, sc.read(hz[1:])),
        (magnetic, hz[1:], sc.read(ex), sc.read(ey[:-1]), sc.read(ey[1:])),
    ]
    return sc.parallel_iterate(chain, times=100, pool=pool)


def fdtd():
    """Three kernels a sweep, over three arrays in place."""
    rng, size = np.random.default_rng(0), 2048
    arrays = [rng.random((size + more, size)) for more in (0, 1, 1)]
    yield from _compared(
        "FDTD 2-D, 2048^2, 100 sweeps",
        lambda ex, ey, hz: fdtd_prange(ex, ey, hz, 100),
        "prange",
        arrays,
        _fdtd,
        0.70,
    )

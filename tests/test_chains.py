"""Chains of which links see neighbours: the same, bit for bit, as link after link."""

from __future__ import annotations

import os
import signal
import threading

import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import KernelTimeoutError, OutOfBoundsError, WorkerLostError
from shmcompute.plans import Options, call_key
from shmcompute.testing import shared

_raise = nb.types.ExternalFunction("raise", nb.types.int32(nb.types.int32))
_kill = nb.types.ExternalFunction("kill", nb.types.int32(nb.types.int32, nb.types.int32))


@nb.njit
def weigh(new, old, factor):
    margin = old.shape[0] - new.shape[0]
    for i in range(new.shape[0]):
        total = 0.0
        for k in range(margin + 1):
            total += old[i + k] * (k + factor)
        new[i] = total / (margin + 1)


def weigh_python(new, old, factor):
    weigh.py_func(new, old, factor)


@nb.njit
def add(x, y):
    for i in range(x.shape[0]):
        x[i] += y[i]


@nb.njit
def number(x, start):
    for i in range(x.shape[0]):
        x[i] += start + i


def one_after_another(links, pool=None):
    for kernel, *args in links:
        sc.parallel_apply(kernel, *args, pool=pool)


def of_arrays(count, length, seed=0, storage=None):
    rng = np.random.default_rng(seed)
    return [shared(rng.random(length), storage or {}) for _ in range(count)]


class Twins:
    """Arrays, and others of the same content, on which links are run one after another."""

    def __init__(self, count, length, seed=0, storage=None):
        self.arrays = of_arrays(count, length, seed, storage)
        self.others = [sc.SharedArray(one.array) for one in self.arrays]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for one in (*self.arrays, *self.others):
            one.close()

    def agree(self):
        for number, (one, other) in enumerate(zip(self.arrays, self.others, strict=True)):
            np.testing.assert_array_equal(one.array, other.array, err_msg=f"array {number}")


def smoothing(a, b, c, kernel=weigh):
    """Links that see neighbours, themselves, and what later ones write."""
    return [
        (kernel, b[1:-1], sc.halo(a, 1), 0.5),
        (add, b[1:-1], sc.read(a[1:-1])),
        (kernel, c[1:-1], sc.halo(b, 1), 1.5),
        (kernel, a[1:-1], sc.halo(c, 1), 0.25),
    ]


def any_depths(rng):
    """Some links: from which array to which, where what is written begins, depths, a number."""
    for _ in range(rng.integers(2, 7)):
        before, after = rng.integers(0, 4, 2)
        ends = rng.integers(0, 7), rng.integers(0, 7 - before - after)
        yield *rng.choice(3, 2, replace=False), *ends, before, after, rng.random()


def links_of(depths, arrays, length):
    for one, other, first, start, before, after, factor in depths:
        seen = arrays[other][start : start + length + before + after]
        halo = sc.halo(seen, (int(before), int(after)))
        yield weigh, arrays[one][first : first + length], halo, float(factor)


@pytest.mark.long
@pytest.mark.parametrize("workers", range(1, 8))
def test_any_links_on_any_number_of_workers(workers):
    rng, blocked = np.random.default_rng(workers), []
    with sc.Pool(workers, backend="threads") as pool:
        for length in [3, 34, 294, *([1994] * 12)]:
            chunksize, depths = rng.choice([None, 1, 7, 100]), [*any_depths(rng)]
            with Twins(3, length + 6, workers) as twins:
                chain = [*links_of(depths, twins.arrays, length)]
                step = sc.plan(chain, pool=pool, chunksize=chunksize)
                for _ in range(2):
                    step()
                    for kernel, written, seen, factor in links_of(depths, twins.others, length):
                        kernel(written, seen.value, factor)
                twins.agree()
                skewed = step._plan.skewed
                blocked.append(skewed is not None and skewed.sweeps.schedule.blocked)
    assert True in blocked


@pytest.mark.parametrize("kernel", [weigh, weigh_python], ids=["jitted", "python"])
def test_on_every_pool_and_storage(any_pool, any_storage, kernel):
    with Twins(3, 700, storage=any_storage) as twins:
        for _ in range(3):
            sc.parallel_apply(smoothing(*twins.arrays, kernel), pool=any_pool)
            one_after_another(smoothing(*twins.others))
        twins.agree()


@pytest.fixture(params=["forkserver", "caller", "threads", "serial"])
def some_pool(request, pools):
    """A pool of each way to run sweeps."""
    return pools[request.param]


def test_jitted_links_go_skewed(some_pool):
    with Twins(3, 700) as twins:
        step = sc.plan(smoothing(*twins.arrays), pool=some_pool)
        assert step._plan.skewed.sweeps.schedule.blocked
        step()
        one_after_another(smoothing(*twins.others))
        twins.agree()


@pytest.mark.parametrize("schedule", ["static", "dynamic", "guided"])
@pytest.mark.parametrize("chunksize", [None, 1, 64])
def test_any_schedule_and_chunksize(some_pool, schedule, chunksize):
    with Twins(3, 300) as twins:
        how = {"schedule": schedule, "chunksize": chunksize, "pool": some_pool}
        sc.parallel_apply(smoothing(*twins.arrays), **how)
        one_after_another(smoothing(*twins.others))
        twins.agree()


@pytest.mark.long
@pytest.mark.parametrize("boundary", ["edge", "reflect", "symmetric", "wrap", 1.5])
@pytest.mark.parametrize("kernel", [weigh, weigh_python], ids=["jitted", "python"])
@pytest.mark.parametrize("length", [8, 400])
def test_halos_with_a_boundary(some_pool, boundary, kernel, length):
    def links(a, b, c):
        def halo(x, depth):
            return sc.halo(x, depth, boundary=boundary)

        return [(kernel, b, halo(a, 2), 0.5), (kernel, c, halo(b, (0, 3)), 1.0), (add, a, c)]

    with Twins(3, length) as twins:
        sc.parallel_apply(links(*twins.arrays), pool=some_pool)
        one_after_another(links(*twins.others))
        twins.agree()


def test_ufuncs_on_shifted_views(any_pool):
    def links(a, b, c):
        return [
            (np.add, b[1:-1], sc.read(a[:-2])),
            (np.multiply, c[1:-1], sc.read(b[2:])),
            (np.subtract, a[1:-1], sc.read(c[:-2])),
        ]

    with Twins(3, 500) as twins:
        sc.parallel_apply(links(*twins.arrays), pool=any_pool)
        one_after_another(links(*twins.others))
        twins.agree()


def test_two_links_that_write_what_the_other_does_nearby(some_pool):
    with Twins(1, 500) as twins:
        for (x,), how in ((twins.arrays, sc.parallel_apply), (twins.others, None)):
            links = [(number, x[:-1], sc.offset), (number, x[1:], sc.offset)]
            how(links, pool=some_pool) if how else one_after_another(links)
        twins.agree()


def test_a_step_of_fdtd(some_pool):
    """Each of two fields is written by the curl of the other: the first sees what is yet to be."""

    @nb.njit
    def magnetic(h, e):
        for i in range(h.shape[0]):
            for j in range(h.shape[1]):
                h[i, j] += 0.5 * (e[i + 1, j] - e[i, j])

    @nb.njit
    def electric(e, h):
        for i in range(e.shape[0]):
            for j in range(e.shape[1]):
                e[i, j] += 0.5 * (h[i + 1, j] - h[i, j])

    def step(e, h):
        return [(magnetic, h[:-1], sc.halo(e, (0, 1))), (electric, e[1:], sc.halo(h, (1, 0)))]

    with Twins(2, (300, 6)) as twins:
        advance = sc.plan(step(*twins.arrays), pool=some_pool)
        for _ in range(5):
            advance()
            one_after_another(step(*twins.others))
        twins.agree()


def test_numbers_and_what_is_the_chunks_own(some_pool):
    @nb.njit
    def sums(x, y, row, out):
        row[0] = 0.0
        for i in range(x.shape[0]):
            row[0] += y[i] + y[i + 1]
            x[i] = y[i + 1] - y[i]
        out[()] = row[0]

    with Twins(2, 301) as twins:
        for x, y in (twins.arrays, twins.others):
            links = [
                (number, y[1:], sc.offset),
                (sums, x[1:], sc.halo(y, (1, 0)), sc.scratch(1), sc.per_chunk(())),
            ]
            if x is twins.arrays[0]:
                made = sc.parallel_apply(links, pool=some_pool, chunksize=50)
            else:
                sc.parallel_apply(*links[0])
                again = sc.parallel_apply(*links[1], chunksize=50, pool=some_pool)
        twins.agree()
        np.testing.assert_array_equal(made.array, again.array)
        made.close()
        again.close()


def test_calls_like_it_are_bound_once(some_pool):
    """Numbers are values of a call, also of one that goes skewed."""

    def links(a, b, factor):
        return [(weigh, b, sc.halo(a, 1, boundary="edge"), factor), (weigh, a, sc.halo(b, 0), 2.0)]

    with Twins(2, 400) as twins:
        kept = []
        for factor in (0.5, 1.5, 2.5):
            sc.parallel_apply(links(*twins.arrays, factor), pool=some_pool)
            one_after_another(links(*twins.others, factor))
            key, _ = call_key(links(*twins.arrays, factor), (), Options())
            kept.append(some_pool.plans.find(key))
        twins.agree()
        assert kept[0].apart
        assert kept[0] is kept[1] is kept[2]


def test_debug_looks_at_each_link(any_pool):
    @nb.njit
    def spills(x, y):
        for i in range(x.shape[0] + 1):
            x[i] = y[i]

    with Twins(3, 200) as twins:
        sc.parallel_apply(smoothing(*twins.arrays), pool=any_pool, debug=True)
        one_after_another(smoothing(*twins.others))
        twins.agree()
        a, b, c = twins.arrays
        wrong = [(weigh, b[1:-1], sc.halo(a, 1), 1.0), (spills, c[1:-1], sc.halo(b, 1))]
        with pytest.raises((OutOfBoundsError, IndexError)):
            sc.parallel_apply(wrong, pool=any_pool, debug=True)


def test_what_can_be_no_chain_is_refused(pools):
    with Twins(2, (20, 20)) as twins:
        a, b = twins.arrays
        first = (weigh, b[1:-1], sc.halo(a, 1), 1.0)

        def refused(match, *more, **options):
            with pytest.raises(ValueError, match=match):
                sc.parallel_apply([first, *more], pool=pools["serial"], **options)

        refused("sees in other parts.*sc.halo", (add, a[1:-1], sc.whole(b)))
        refused("sees in other parts", (add, a[1:-1], sc.read(b[:, 1:-1], axis=1)))
        refused("one length", (weigh, a[2:-2], sc.halo(b[1:-1], 1), 1.0))
        refused("retries=2: a link", (weigh, a[1:-1], sc.halo(b, 1), 1.0), retries=2)
        twins.agree()


def test_chains_without_neighbours_may_be_retried(pools):
    with sc.SharedArray.zeros(50) as arr:
        sc.parallel_apply(
            [(number, arr, sc.offset), (add, arr, arr)],
            retries=1,
            pool=pools["forkserver"],
        )
        np.testing.assert_array_equal(arr.array, 2.0 * np.arange(50))


def test_threads_may_run_one_plan_at_a_time_or_together(pools):
    """Who finds it at work goes link after link."""
    with Twins(3, 4000) as twins:
        a, b, c = twins.arrays
        plan = sc.plan(
            [(weigh, b[1:-1], sc.halo(a, 1), 1.0), (weigh, c[1:-1], sc.halo(b, 1), 1.0)],
            pool=pools["threads"],
        )
        threads = [threading.Thread(target=lambda: [plan() for _ in range(30)]) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        x, y, z = twins.others
        one_after_another(
            [(weigh, y[1:-1], sc.halo(x, 1), 1.0), (weigh, z[1:-1], sc.halo(y, 1), 1.0)]
        )
        twins.agree()


def test_within_a_kernel_it_is_run_there(pools):
    with Twins(3, 300) as twins, sc.SharedArray.zeros(1) as one:
        chain = sc.plan(smoothing(*twins.arrays), pool=pools["threads"])
        sc.parallel_apply(lambda _: chain(), one, pool=pools["threads"])
        one_after_another(smoothing(*twins.others))
        twins.agree()


KINDS = {
    "processes": {},
    "fork": {"start_method": "fork"},
    "caller": {"caller_runs": True},
    "threads": {"backend": "threads"},
    "serial": {"backend": "serial"},
}


@pytest.fixture
def pool(request):
    """A pool of the test's own: its workers may be replaced."""
    with sc.Pool(2, **KINDS[request.param]) as pool:
        yield pool.ready()


def of(*kinds):
    return pytest.mark.parametrize("pool", kinds, indirect=True)


@nb.njit
def strike(new, old, start, at, pid):
    for i in range(new.shape[0]):
        new[i] = old[i + 1]
        if start + i == at and pid == 0:
            _raise(9)
        if start + i == at and pid > 0:
            _kill(pid, 2)


@nb.njit
def slow(new, old, rounds):
    for _ in range(rounds):
        for i in range(new.shape[0]):
            new[i] = np.sin(new[i] + old[i + 1])


def struck(a, b, at, pid):
    return [
        (strike, b[1:-1], sc.halo(a, 1), sc.offset, -1, -1),
        (strike, a[1:-1], sc.halo(b, 1), sc.offset, at, pid),
    ]


def works_and_stands_still(twins, pool):
    seen = [one.array.copy() for one in twins.arrays]
    with Twins(3, 300) as others:
        sc.parallel_apply(smoothing(*others.arrays), pool=pool)
        one_after_another(smoothing(*others.others))
        others.agree()
    for one, then in zip(twins.arrays, seen, strict=True):
        np.testing.assert_array_equal(one.array, then)


@of("processes", "fork", "caller")
def test_a_workers_death_leaves_all_of_it_undefined(pool):
    with Twins(2, 1002) as twins:
        # The last index: that of a worker also where the caller takes a share.
        with pytest.raises(WorkerLostError, match="all that the chain writes is und") as caught:
            sc.parallel_apply(struck(*twins.arrays, 999, 0), pool=pool)
        assert caught.value.exitcode == -signal.SIGKILL
        assert caught.value.chunks == [(0, 1000)]
        works_and_stands_still(twins, pool)


@of("processes", "caller", "threads", "serial")
def test_an_interrupt_ends_it(pool):
    with Twins(2, 1002) as twins:
        with pytest.raises(KeyboardInterrupt):
            sc.parallel_apply(struck(*twins.arrays, 500, os.getpid()), pool=pool)
        works_and_stands_still(twins, pool)


@of("processes", "caller", "threads", "serial")
def test_a_timeout_is_for_all_links(pool):
    with Twins(2, 1002) as twins:
        a, b = twins.arrays

        def links(rounds):
            return [(slow, b[1:-1], sc.halo(a, 1), 1), (slow, a[1:-1], sc.halo(b, 1), rounds)]

        sc.parallel_apply(links(1), pool=pool, chunksize=10)  # or the time may pass in loading
        with pytest.raises(KernelTimeoutError, match=r"timeout of 0\.1 s; all that") as caught:
            sc.parallel_apply(links(500_000), pool=pool, timeout=0.1, chunksize=10)
        assert caught.value.chunks == [(0, 1000)]
        works_and_stands_still(twins, pool)


def test_what_a_kernel_raises_says_where(some_pool):
    def fails(x, y):
        raise ZeroDivisionError("none")

    with Twins(2, 100) as twins:
        a, b = twins.arrays
        links = [(weigh, b[1:-1], sc.halo(a, 1), 1.0), (fails, a[1:-1], sc.halo(b, 1))]
        with pytest.raises(ZeroDivisionError) as caught:
            sc.parallel_apply(links, pool=some_pool)
        assert any("of kernel" in note and "fails" in note for note in caught.value.__notes__)


def test_what_does_not_travel_is_refused_before_the_first_link_runs(pools):
    lock = threading.Lock()

    def second(x, y):
        with lock:
            x += y[1:-1]

    with Twins(2, 50) as twins:
        a, b = twins.arrays
        links = [(weigh, b[1:-1], sc.halo(a, 1), 1.0), (second, a[1:-1], sc.halo(b, 1))]
        with pytest.raises(sc.errors.KernelSerializationError):
            sc.parallel_apply(links, pool=pools["forkserver"])
        twins.agree()


@pytest.mark.parametrize("kernel", [weigh, weigh_python], ids=["jitted", "python"])
def test_whichever_backend_is_chosen(kernel):
    with sc.Pool(2, backend="auto") as pool, Twins(3, 400) as twins:
        for _ in range(12):
            sc.parallel_apply(smoothing(*twins.arrays, kernel), pool=pool)
            one_after_another(smoothing(*twins.others))
        twins.agree()

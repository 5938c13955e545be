"""Advice on chunks and workers: how the work is cut, and who there is to do it."""

from __future__ import annotations

from shmcompute.diagnostics.case import Case, Found, Look
from shmcompute.diagnostics.explanation import size
from shmcompute.system import cores

LINE = 64  # bytes that cores hand to each other at once
SMALL = 1 << 16  # bytes that a core goes over while workers are woken
TINY = 1 << 12, 1 << 9  # bytes of a chunk that Python, and machine code, take as long to call for
MANY = 256  # chunks a worker
ENOUGH = 8  # chunks a worker, with which it matters little who gets one more
UNEVEN = 1.15  # how much longer one may have than the mean


def _one_worker(case: Case) -> Found:
    if case.workers == 1 and (case.backend.shared or case.backend.threaded):
        yield (
            f"there is one worker; {cores.granted()} of {cores.seen()} cores are granted",
            "See affinity, the control group's quota, SHMCOMPUTE_WORKERS and Pool(workers)",
        )


def _few(case: Case) -> Found:
    if 0 < case.chunks.count < case.workers:
        yield (
            f"there are fewer chunks than workers, {case.chunks.count} for {case.workers}, so "
            f"{case.workers - case.chunks.count} have nothing to do",
            "Choose a smaller chunksize=, or split along a longer axis (axis=)",
        )


def _oversubscribed(case: Case) -> Found:
    granted = cores.granted()
    if case.workers > max(1, granted):
        yield (
            f"{case.workers} workers share {granted} cores: they take turns, and sleep between "
            "calls, where they would else wait awake",
            f"Make a pool of {granted} workers at most",
        )


def _small(case: Case) -> Found:
    total = case.chunks.nbytes * case.chunks.count
    if case.several and 0 < total < SMALL:
        yield (
            f"all chunks together are {size(total)}, which one core goes over in about the time "
            "that waking others takes, unless the kernel does much with each element",
            'Choose backend="serial", or put several such calls into one',
        )


def _tiny(case: Case) -> Found:
    chunks = case.chunks
    by_machine = all(account.way == "machine code" for account in case.kernels)
    if chunks.count > MANY * max(1, chunks.takers) and 0 < chunks.nbytes < TINY[by_machine]:
        yield (
            f"the kernel is called {chunks.count:,} times, for {size(chunks.nbytes)} each: "
            "handing out chunks takes longer than small ones are worked on",
            "Choose a larger chunksize=, or leave it out",
        )


def _one_cache_line(case: Case) -> Found:
    if not case.several:
        return
    for which, part, seen in case.parts():
        if part.writes and 0 < seen.nbytes < LINE:
            yield (
                f"each chunk writes {seen.nbytes} bytes of {which}, so several workers write to "
                "one cache line, which goes to and fro between their cores",
                f"Choose a chunksize= that makes {LINE} bytes and more of it",
            )


def _uneven(case: Case) -> Found:
    """Static chunks of which somebody gets one more, and that are few."""
    chunks = case.chunks
    if not (case.several and chunks.schedule == "static") or chunks.count > ENOUGH * chunks.takers:
        return
    shares = [0] * chunks.takers
    for number, (start, stop) in enumerate(chunks.ranges):
        shares[number % chunks.takers] += stop - start
    if max(shares) * chunks.takers > UNEVEN * sum(shares):
        yield (
            f"chunks do not divide evenly: one worker gets {max(shares):,} of {sum(shares):,} "
            f"elements, of which {sum(shares) // chunks.takers:,} would be its share",
            'Leave chunksize= out, or choose schedule="dynamic" with smaller chunks',
        )


def _beyond_cache(case: Case) -> Found:
    plan = case.plan
    if plan.apart and plan.skewed is None:
        yield (
            "kernels see what others do to neighbours, and do not go one behind the other in "
            "blocks that stay in cache, so each goes through memory",
            'Have all of them jitted and called by machine code, with schedule="static"',
        )
    elif len(plan.links) > 1 and not plan.apart and case.chunks.nbytes > cores.cache():
        yield (
            f"a chunk of the chain is {size(case.chunks.nbytes)}, more than a core's second-level "
            f"cache of {size(cores.cache())}: each kernel fetches it from memory again",
            "Leave chunksize= out: a chain's chunks are then cut for the cache",
        )


LOOKS: dict[str, Look] = {
    "one-worker": _one_worker,
    "few-chunks": _few,
    "oversubscribed": _oversubscribed,
    "small": _small,
    "tiny-chunks": _tiny,
    "cache-line": _one_cache_line,
    "uneven": _uneven,
    "chain": _beyond_cache,
}

"""Advice on kernels: which way they are called, and what they are compiled for."""

from __future__ import annotations

import sys

from numba.core import config as numba_config

from shmcompute.chunking import Constant
from shmcompute.diagnostics.case import Case, Found, Look
from shmcompute.kernels import NumbaKernel, original_of

VERSIONS = 4  # of one kernel, from which on it is odd
SLOW = 1.0  # seconds of compiling that one notices


def _debugged(case: Case) -> Found:
    if case.options.debug:
        yield (
            "each chunk is run on guarded copies, by Python",
            "Leave debug=True (or SHMCOMPUTE_DEBUG) to the search for mistakes",
        )


def _jit_off(case: Case) -> Found:
    python = any(account.way == "Python" for account in case.kernels)
    if python and getattr(numba_config, "DISABLE_JIT", False):
        yield (
            "NUMBA_DISABLE_JIT is set, so numba.njit leaves functions as they are",
            "Unset it, before numba is imported",
        )


def _takes_turns(case: Case) -> Found:
    if not (case.several and case.backend.threaded and _has_gil()):
        return
    for account in case.kernels:
        if account.way == "Python":
            yield (
                f"{account.name} is Python, at which threads take turns, but for what NumPy does "
                "without the GIL",
                'Jit it with numba.njit, or choose backend="processes"',
            )


def _has_gil() -> bool:
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


def _called_by_python(case: Case) -> Found:
    """Kernels that are jitted, and yet called by Python."""
    if case.options.debug or case.options.retries or not case.several:
        return  # which is what was asked for
    for account in case.kernels:
        if account.way == "dispatcher" and account.source is None:
            yield (
                f"{account.name} is jitted, but Python calls it for each chunk: {account.reason}",
                "Machine code calls kernels that return nothing, with arrays, numbers and markers; "
                "else few and large chunks hide what Python takes",
            )


def _sent_as_source(case: Case) -> Found:
    for account in case.kernels:
        if account.source is not None:
            yield (
                f"each worker compiles {account.name} again, from its source: {account.source}",
                'Do without that in the kernel, or choose backend="threads", which shares code',
            )


def _compiled_long(case: Case) -> Found:
    for account in case.kernels:
        seconds = sum(one.seconds or 0.0 for one in account.versions if one.new)
        if seconds >= SLOW:
            yield (
                f"compiling {account.name} took {seconds:.1f} s just now; a first call would have "
                "waited for it",
                "numba.njit(cache=True) keeps the code for other programs, plan() compiles ahead",
            )


def _compiled_twice(case: Case) -> Found:
    for link, account in case.links:
        kernel = link.kernel
        if not isinstance(kernel, NumbaKernel) or not account.versions:
            continue
        given = original_of(kernel.dispatcher)
        if kernel.dispatcher is not given and given.overloads:
            yield (
                f"{account.name} is compiled once more, with other options than it was given: for "
                "threads with nogil=True, to debug with boundscheck=True",
                "numba.njit(nogil=True) makes one version do for threads, too",
            )


def _many_versions(case: Case) -> Found:
    for account in case.kernels:
        if len(account.versions) >= VERSIONS:
            yield (
                f"{account.name} was compiled {len(account.versions)} times, for as many kinds of "
                "arguments",
                "Call it with arrays of one dtype, dimension and memory layout, and with numbers "
                "of one type",
            )


def _parallel_within(case: Case) -> Found:
    for link, account in case.links:
        kernel = link.kernel
        if isinstance(kernel, NumbaKernel) and kernel.dispatcher.targetoptions.get("parallel"):
            yield (
                f"{account.name} is jitted with parallel=True: it takes longer to compile, and "
                "has but threads_per_worker= threads in each worker, by default 1",
                "Jit it without: the chunks are what runs in parallel",
            )


def _converts_lists(case: Case) -> Found:
    jitted = {link.kernel.name for link, _ in case.links if isinstance(link.kernel, NumbaKernel)}
    for which, argument in case.arguments(Constant):
        value = argument.value if isinstance(argument, Constant) else None
        if isinstance(value, list) and which.partition(" of ")[2] in jitted:
            yield (
                f"{which} is a list, of which Numba converts all {len(value)} elements, there "
                "and back, in each chunk",
                "Pass sc.whole(numpy.array(it)), or a short one as a tuple",
            )


LOOKS: dict[str, Look] = {
    "debug": _debugged,
    "jit-off": _jit_off,
    "gil": _takes_turns,
    "by-python": _called_by_python,
    "source": _sent_as_source,
    "compiling": _compiled_long,
    "variant": _compiled_twice,
    "versions": _many_versions,
    "parallel": _parallel_within,
    "list": _converts_lists,
}

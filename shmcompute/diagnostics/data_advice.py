"""Advice on arrays: where they lie, and what is copied, sent and bound."""

from __future__ import annotations

import os
from contextlib import suppress

import numpy as np

from shmcompute.chunking import Constant, PaddedPart, Part, WholeArray
from shmcompute.diagnostics.accounts import array_of, copied_bytes
from shmcompute.diagnostics.case import Case, Found, Look
from shmcompute.diagnostics.explanation import size
from shmcompute.plans import size_of
from shmcompute.storage import Segment, locate
from shmcompute.system import mappings

NOTICED = 1 << 16  # bytes whose copy one notices
MUCH = 4  # what part of an array, from which on that is much


def _scattered(case: Case) -> Found:
    for which, part, seen in case.parts():
        if seen.flags.forc or seen.shape[part.axis] == part.view.shape[part.axis]:
            continue
        if part.view.flags.forc:
            outer = int(np.argmax(np.abs(part.view.strides)))
            yield (
                f"chunks of {which} are not contiguous: it is split along axis {part.axis}, and "
                f"lies in memory by axis {outer}",
                f"Split along axis={outer}, or make it with order={'CF'[outer == 0]!r}",
            )
        else:
            yield (
                f"{which} is a view with gaps, so each of its chunks has some, too, and compilers "
                "make slower code of it",
                "Pass a contiguous array",
            )


def _copied(case: Case) -> Found:
    for which, argument in case.arguments(Constant):
        view = array_of(argument)
        if case.backend.shared and view is not None and view.nbytes >= NOTICED:
            yield (
                f"{which} is a plain array of {size(view.nbytes)}: each call pickles it, and each "
                "worker gets a copy",
                "Put it into a SharedArray",
            )


def _padded(case: Case) -> Found:
    for which, part in case.arguments(PaddedPart):
        nbytes = copied_bytes(part, case.plan)
        if isinstance(part, PaddedPart) and nbytes * MUCH > part.view.nbytes:
            yield (
                f"boundary= has {size(nbytes)} of {which} copied in each call, of "
                f"{size(part.view.nbytes)}",
                "Choose larger chunks, or pad the array once and leave boundary= out",
            )


def _journaled(case: Case) -> Found:
    retries = case.options.retries
    if retries and not case.backend.shared:
        yield (
            f"retries={retries} does nothing here: only worker processes can die",
            "Leave it out",
        )
    elif retries and case.plan.chunks:
        nbytes = max(size_of(case.plan.written(i)) for i in range(len(case.plan.chunks)))
        yield (
            f"retries={retries} has each chunk copied before it is run, up to {size(nbytes)}, "
            "and run by Python",
            "Leave it out where a worker's death may end the call",
        )


def _on_disk(case: Case) -> Found:
    for which, segment in _segments(case):
        if segment.handle.kind == "file" and not _in_memory(segment.handle.name):
            yield (
                f"{which} lies in a file on disk, {segment.handle.name}: what is touched first is "
                "read from there, and what is changed is written back",
                "If it fits into memory, copy it: SharedArray(arr)",
            )


def _in_memory(path: str) -> bool:
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return mappings.is_tmpfs(fd)
        finally:
            os.close(fd)
    return True  # nothing is known of it


def _fallen_back(case: Case) -> Found:
    for which, segment in _segments(case):
        if segment.handle.kind == "array":
            yield (
                f'{which} lies in a multiprocessing.Array, to which storage="auto" falls back '
                "where /dev/shm is missing or full",
                "Give /dev/shm room, unless that is what you want; `python -m shmcompute info` "
                "says more",
            )


def _segments(case: Case) -> list[tuple[str, Segment]]:
    """The segments that arrays look into, each with the first of these."""
    found: dict[Segment, str] = {}
    for which, argument in case.arguments(Part, WholeArray):
        view = array_of(argument)
        place = None if view is None else locate(view)
        if place is not None:
            found.setdefault(place[0], which)
    return [(which, segment) for segment, which in found.items()]


def _bound_anew(case: Case) -> Found:
    if case.anew is not None and not case.options.debug:
        yield (
            f"each such call is bound and checked anew: {case.anew}",
            "Where it is repeated, bind it once: step = sc.plan(...); step()",
        )


def _not_started(case: Case) -> Found:
    if case.backend.shared and not case.started:
        yield (
            "the first call starts the worker processes, which takes a second or so",
            "Start them ahead: sc.Pool(...).ready()",
        )


LOOKS: dict[str, Look] = {
    "scattered": _scattered,
    "copied": _copied,
    "padding": _padded,
    "retries": _journaled,
    "file": _on_disk,
    "storage": _fallen_back,
    "bound-anew": _bound_anew,
    "start": _not_started,
}

"""Aliasing: whether arguments share memory in ways that chunks must not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from shmcompute.typing import Array

WORK = 100_000  # steps that NumPy may take to tell whether two views overlap: some milliseconds


class Access(NamedTuple):
    """How the chunks of a call see one array."""

    position: int  # among the arguments
    view: Array
    axis: int | None  # along which it is split; None: each chunk sees all of it
    writes: bool


def check_chunks(access: Access) -> None:
    """Refuse a view that repeats its own memory: two chunks would write the same elements.

    Raises
    ------
    ValueError
    """
    position, view, axis, _ = access
    if axis is None or view.shape[axis] < 2 or _distinct(view):
        return
    if overlap(*np.split(view, [1], axis)):
        raise ValueError(
            f"argument {position} (shape {view.shape}, strides {view.strides}) repeats its memory "
            f"along axis {axis}: two chunks would write the same elements"
        )


def _distinct(view: Array) -> bool:
    """Whether each stride steps over all that the smaller ones reach, as in any usual view."""
    if view.flags.forc:
        return True
    reach = view.itemsize
    for stride, size in sorted(zip(map(abs, view.strides), view.shape, strict=True)):
        if size > 1 and stride < reach:
            return False
        reach += (size - 1) * stride
    return True


def check_written(accesses: Sequence[Access]) -> None:
    """Refuse two written arguments that overlap: two workers would write the same elements.

    Raises
    ------
    ValueError
    """
    written = [access for access in accesses if access.writes]
    for one, other in itertools.combinations(written, 2):
        if not _same_parts(one, other) and overlap(one.view, other.view):
            raise ValueError(
                f"arguments {one.position} (shape {one.view.shape}) and {other.position} (shape "
                f"{other.view.shape}) are both written and overlap in memory; pass one of them as "
                "sc.read(x), or a copy"
            )


def check_chain(links: Sequence[Sequence[Access]], lengths: Sequence[int]) -> None:
    """Refuse chains in which a link would see, or overwrite, what another did to other chunks.

    Raises
    ------
    ValueError
        For unlike lengths, and for an array that one link writes and another sees in other parts.
    """
    if len(set(lengths)) > 1:
        listed = ", ".join(map(str, lengths))
        raise ValueError(f"the links of a chain must split one length, got {listed}")
    for (i, one), (j, other) in itertools.permutations(enumerate(links), 2):
        for written, seen in itertools.product(one, other):
            if _crosses(written, seen):
                raise ValueError(
                    f"link {i} of the chain writes an array (shape {written.view.shape}) that link "
                    f"{j} sees in other parts: a chunk goes through all links before the next one, "
                    "so it would see some of it written and some not; make it two calls"
                )


def crossing(accesses: Sequence[Access]) -> tuple[int, int] | None:
    """Positions of a written argument and of one that sees that memory in other chunks."""
    for written, seen in itertools.permutations(accesses, 2):
        if _crosses(written, seen):
            return written.position, seen.position
    return None


def _crosses(written: Access, seen: Access) -> bool:
    """Whether a chunk may see what another chunk writes."""
    if not written.writes or (seen.axis is not None and _same_parts(written, seen)):
        return False
    return overlap(written.view, seen.view)


def _same_parts(one: Access, other: Access) -> bool:
    """Whether two arguments are one array, cut alike."""
    return (
        address(one.view) == address(other.view)
        and one.view.shape == other.view.shape
        and one.view.strides == other.view.strides
        and one.view.dtype == other.view.dtype
        and one.axis == other.axis
    )


def overlap(one: Array, other: Array) -> bool:
    """Whether two views share an element; if that takes too long to tell, whether they might."""
    try:
        return bool(np.shares_memory(one, other, max_work=WORK))  # type: ignore[arg-type]  # any number
    except np.exceptions.TooHardError:
        return bool(np.may_share_memory(one, other))


def address(view: Array) -> int:
    """The address of the first element."""
    first: int = view.__array_interface__["data"][0]
    return first

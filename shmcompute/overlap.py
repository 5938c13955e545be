"""Whether arguments share memory in ways that chunks must not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from shmcompute.arguments import Arguments, Bound, Part, Same, address
from shmcompute.storage import Array

WORK = 100_000  # steps that NumPy may take to tell whether two views overlap: milliseconds


def check_chunks(position: int, view: Array, axis: int) -> None:
    """A view that repeats its own memory along the axis would be written by two workers at once."""
    if view.shape[axis] < 2 or _distinct(view):
        return
    if overlap(*np.split(view, [1], axis)):
        raise ValueError(
            f"argument {position} (shape {view.shape}, strides {view.strides}) repeats its memory "
            f"along axis {axis}: two chunks would write the same elements"
        )


def _distinct(view: Array) -> bool:
    """Whether each stride steps over all that the smaller ones reach, as in any usual view."""
    reach = view.itemsize
    for stride, size in sorted(
        (abs(stride), size) for stride, size in zip(view.strides, view.shape, strict=True)
    ):
        if size > 1 and stride < reach:
            return False
        reach += (size - 1) * stride
    return True


def check_overlap(parts: Sequence[tuple[int, Part]]) -> None:
    """Two arguments that share memory would be written by two workers at once."""
    for (i, one), (j, other) in itertools.combinations(parts, 2):
        if not _same(one, other) and overlap(one.view, other.view):
            raise ValueError(
                f"arguments {i} (shape {one.view.shape}) and {j} (shape {other.view.shape}) are "
                "both written and overlap in memory; pass one of them as sc.read(x), or a copy"
            )


def check_chain(links: Sequence[Arguments]) -> None:
    """Refuse chains in which a link would see, or undo, what another did to other chunks.

    Raises
    ------
    ValueError
        For unlike lengths, and for an array that one link writes and another one sees otherwise
        than in the same parts.
    """
    if len({arguments.length for arguments in links}) > 1:
        told = ", ".join(str(arguments.length) for arguments in links)
        raise ValueError(f"the links of a chain must split one length, got {told}")
    for (i, one), (j, other) in itertools.permutations(enumerate(links), 2):
        for written, seen in itertools.product(one.bound, other.bound):
            if isinstance(written, Part) and written.writes and _crosses(written, seen):
                raise ValueError(
                    f"link {i} of the chain writes an array (shape {written.view.shape}) that link "
                    f"{j} sees in other parts: a chunk goes through all links before the next one, "
                    "so it would see some of it written and some not; make it two calls"
                )


def _crosses(written: Part, seen: Bound) -> bool:
    """Whether a chunk of what is seen may be in another chunk of what is written."""
    if isinstance(seen, Part):
        return not _same(written, seen) and overlap(written.view, seen.view)
    return (
        isinstance(seen, Same)
        and isinstance(seen.value, np.ndarray)
        and (overlap(written.view, seen.value))
    )


def crossing(arguments: Arguments) -> tuple[int, int] | None:
    """Two arguments, of which one is written and the other sees that memory in other chunks."""
    for (i, written), (j, seen) in itertools.permutations(enumerate(arguments.bound), 2):
        if isinstance(written, Part) and written.writes and _crosses(written, seen):
            return i, j
    return None


def _same(one: Part, other: Part) -> bool:
    """Whether two arguments are one, cut alike."""
    return (
        address(one.view) == address(other.view)
        and one.view.shape == other.view.shape
        and one.view.strides == other.view.strides
        and one.view.dtype == other.view.dtype
        and one.axis == other.axis
    )


def overlap(one: Array, other: Array) -> bool:
    """Whether two views share an element; where that is too hard to tell, whether they could."""
    try:
        return bool(np.shares_memory(one, other, max_work=WORK))  # type: ignore[arg-type]  # any number
    except np.exceptions.TooHardError:
        return bool(np.may_share_memory(one, other))

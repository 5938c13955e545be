"""Aliasing: whether arguments share memory in ways that chunks must not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from shmcompute.storage import in_mapping_of
from shmcompute.system.addresses import address
from shmcompute.typing import Array

WORK = 100_000  # steps that NumPy may take to tell whether two views overlap: some milliseconds


class Access(NamedTuple):
    """How the chunks of a call see one array."""

    position: int  # among the arguments
    view: Array
    # Along which it is split; None: each chunk sees all of it. In two dimensions, a pair of these.
    axis: int | tuple[int | None, int | None] | None
    writes: bool
    # How many elements more than its own each index of the axis sees.
    margin: int | tuple[int, int] = 0
    padded: int | None = None  # the axis of what is continued beyond its ends, which may be seen

    def cuts(self) -> Sequence[tuple[int | None, int]]:
        """Axis and margin, for each axis of the call."""
        if isinstance(self.axis, tuple) and isinstance(self.margin, tuple):
            return tuple(zip(self.axis, self.margin, strict=True))
        return [(self.axis, self.margin)]  # type: ignore[list-item]  # of one dimension

    @property
    def pace(self) -> int | None:
        """Bytes from what an index sees to what the next does; None if each chunk sees all.

        None also in two dimensions, where nothing is run so that chunks meet their neighbours.
        """
        axis = self.axis if self.padded is None else self.padded
        return self.view.strides[axis] if isinstance(axis, int) else None


def _first_and_rest(view: Array, axis: int, margin: int = 0) -> tuple[Array, Array]:
    """What the first index of an axis sees, and what all others do."""
    before = (slice(None),) * axis
    return view[(*before, slice(0, 1 + margin))], view[(*before, slice(1, None))]


def check_chunks(access: Access) -> None:
    """Refuse a view that repeats its own memory: two chunks would write the same elements.

    Raises
    ------
    ValueError
    """
    if _distinct(access.view):
        return
    view = access.view
    for axis, _ in access.cuts():
        if axis is None or view.shape[axis] < 2:
            continue
        first, rest = _first_and_rest(view, axis)
        if overlap(first, rest):
            raise ValueError(
                f"argument {access.position} (shape {access.view.shape}, strides "
                f"{access.view.strides}) repeats its memory along axis {axis}: two chunks would "
                "write the same elements"
            )
        view = first


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


def check_shared(accesses: Sequence[Access]) -> None:
    """Refuse arguments of which one is written while chunks see the same memory in another.

    What a chunk finds in memory that another chunk writes depends on which of them ran before. Two
    arguments that are one array, cut alike, are allowed: each chunk sees what it writes itself.

    Raises
    ------
    ValueError
    """
    crossed = crossing(accesses)
    if crossed is None:
        return
    written, seen = crossed
    both = f"{_named(written)} and {_named(seen)}"
    if seen.writes:
        raise ValueError(
            f"{both} are both written and overlap in memory; pass one of them as sc.read(x) of a "
            "copy, or make it two calls"
        )
    raise ValueError(
        f"{both} overlap in memory: the second sees what other chunks write in the first, so the "
        "result would depend on which of them ran before; write to a second array (in "
        "sc.parallel_iterate two change places after each sweep), or read a copy: "
        "sc.whole(x.copy()), sc.read(sc.SharedArray(x))"
    )


def _named(access: Access) -> str:
    return f"argument {access.position} (shape {access.view.shape})"


def meets_neighbours(links: Sequence[Sequence[Access]], lengths: Sequence[tuple[int, ...]]) -> bool:
    """Whether a link sees, or overwrites, what another one does to neighbouring chunks.

    Raises
    ------
    ValueError
        For unlike lengths, and for an array that one link writes and another sees in parts that
        are no neighbours.
    """
    if len(set(lengths)) > 1:
        listed = ", ".join(str(one[0] if len(one) == 1 else one) for one in lengths)
        raise ValueError(f"the links of a chain must split one length, got {listed}")
    found = False
    for (i, one), (j, other) in itertools.permutations(enumerate(links), 2):
        for written, seen in itertools.product(one, other):
            if not _crosses(written, seen):
                continue
            if written.pace is None or written.pace != seen.pace:
                raise ValueError(
                    f"link {i} of the chain writes an array (shape {written.view.shape}) that link "
                    f"{j} sees in other parts: a chunk goes through all links before the next one, "
                    "so it would see some of it written and some not; make it two calls, or have "
                    f"link {j} see no more than neighbours, sc.halo(x, depth)"
                )
            found = True
    return found


def crossing(accesses: Sequence[Access]) -> tuple[Access, Access] | None:
    """A written argument and one through which chunks see, or write, that memory as well."""
    for written, seen in itertools.permutations(accesses, 2):
        if _crosses(written, seen):
            return written, seen
    return None


def _crosses(written: Access, seen: Access) -> bool:
    """Whether a chunk may see, or overwrite, what another chunk writes."""
    if not written.writes or _same_parts(written, seen) or not _share(written.view, seen.view):
        return False
    return seen.writes or _reaches_over(written, seen)


def _reaches_over(written: Access, seen: Access) -> bool:
    """Whether an index of the one argument reads what another index of the other writes.

    Rows of which some columns are written and others are read do not, though they overlap.
    """
    if written.axis is None:
        return True
    one, other = written.view, seen.view
    for (axis, _), (its, margin) in zip_longest(written.cuts(), seen.cuts(), fillvalue=(None, 0)):
        if axis is None or one.shape[axis] < 2:  # all of it is one chunk
            continue
        if its is None or one.strides[axis] != other.strides[its]:
            return True
        # With equal strides what holds for the first index holds for each. Of indices that differ
        # along a second axis alone, it is then enough to look at those of the first.
        own_first, own_rest = _first_and_rest(one, axis)
        its_first, its_rest = _first_and_rest(other, its, margin)
        if _share(own_first, its_rest) or _share(own_rest, its_first):
            return True
        one, other = own_first, its_first
    return False


def _share(one: Array, other: Array) -> bool:
    """Whether two views share an element, be it through two mappings of one file."""
    if not (one.size and other.size):
        return False
    return overlap(one, in_mapping_of(one, other))


def _same_parts(one: Access, other: Access) -> bool:
    """Whether two arguments are one array, cut alike; or whole, and written in both."""
    return (
        (one.axis is not None or (one.writes and other.writes))
        and address(one.view) == address(other.view)
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

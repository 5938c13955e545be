"""Binding of arrays in a call along two axes: which of an array's own axes are the call's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shmcompute.chunking.aliasing import Access, check_chunks
from shmcompute.chunking.bound import Block, Bound
from shmcompute.chunking.grid import Shape
from shmcompute.typing import Array

Axes = tuple[int | None, int | None]

WORDS = ("first", "second")


def check_axes(axes: Any) -> None:
    """Refuse axes of a call that are no two whole numbers.

    Raises
    ------
    TypeError, ValueError
    """
    if len(axes) != 2:
        raise ValueError(f"axis: expected a whole number, or a tuple of two, got {axes!r}")
    if not all(map(_is_whole, axes)):
        raise TypeError(f"axis: expected a whole number, or a tuple of two, got {axes!r}")


def bind_block(position: int, view: Array, axes: Any, *, writes: bool) -> Block:
    """An array that is cut along these axes of its own, checked.

    Raises
    ------
    TypeError, ValueError
    """
    own = _own_axes(position, view, axes)
    if writes and None in own:
        missing = WORDS[own.index(None)]
        raise ValueError(
            f"argument {position} (shape {view.shape}) is written, but its axis={axes!r} does not "
            f"cut it along the call's {missing} axis: several blocks would write the same "
            "elements. Pass sc.read(x, axis=...), or sc.per_chunk(shape) for a result of each block"
        )
    if writes and not view.flags.forc:
        check_chunks(Access(position, view, own, writes=True, margin=(0, 0)))
    return Block(view, own, writes)


def _own_axes(position: int, view: Array, axes: Any) -> Axes:
    """The axes, counted from the first."""
    if not (isinstance(axes, tuple) and len(axes) == 2):
        raise TypeError(
            f"argument {position}: its axis is {axes!r}, but the call is along two: expected a "
            "tuple that says which of its own axes are the call's first and second, or None for "
            "one along which it is not cut"
        )
    if axes == (None, None):
        raise ValueError(
            f"argument {position} is cut along none of the call's axes: pass sc.whole(x) to read "
            "it, sc.shared(x) to write it"
        )
    first, second = (axis if axis is None else _own_axis(position, view, axis) for axis in axes)
    if first == second:
        raise ValueError(
            f"argument {position} (shape {view.shape}): axis={axes!r} names axis {first} twice; "
            "expected two different ones"
        )
    return first, second


def _own_axis(position: int, view: Array, axis: Any) -> int:
    if not _is_whole(axis):
        raise TypeError(
            f"argument {position}: axis: expected a whole number or None for each of the call's "
            f"axes, got {axis!r}"
        )
    if not -view.ndim <= axis < view.ndim:
        raise ValueError(
            f"axis {axis} is out of range for argument {position} of shape {view.shape}; the call "
            "is along two axes, and axis=(0, None) or (None, 0) says of an array that it has but "
            "one of them"
        )
    return int(axis) % view.ndim


def _is_whole(axis: Any) -> bool:
    return isinstance(axis, (int, np.integer)) and not isinstance(axis, bool)


def shape_of_grid(bound: Sequence[Bound]) -> Shape:
    """What the blocks among arguments share along the call's axes.

    Raises
    ------
    ValueError
        If none is cut along one of them, or lengths differ.
    """
    blocks = [(i, argument) for i, argument in enumerate(bound) if isinstance(argument, Block)]
    return _length(blocks, 0), _length(blocks, 1)


def _length(blocks: Sequence[tuple[int, Block]], along: int) -> int:
    """Their common length along one of the call's axes."""
    cut = [(i, block) for i, block in blocks if block.axes[along] is not None]
    lengths = {length for _, block in cut if (length := block.lengths[along]) is not None}
    if not lengths:
        raise ValueError(
            f"nothing to split along the call's {WORDS[along]} axis: pass at least one "
            "SharedArray, or a view of one, that has both"
        )
    if len(lengths) > 1 or min(lengths) < 0:
        listed = "; ".join(_told(i, block, along) for i, block in cut)
        raise ValueError(
            f"split arguments must have one length along the call's {WORDS[along]} axis: {listed}"
        )
    return lengths.pop()


def _told(position: int, block: Block, along: int) -> str:
    axis, margin = block.axes[along], block.margins[along]
    told = f"argument {position} is for {block.lengths[along]} (shape {block.view.shape}"
    told += f", axis {axis}"
    if block.lengths[along] != block.view.shape[axis or 0]:
        told += f", which is to be longer by its halo of {margin} in all; boundary= continues one "
        told += "that is as long as the others"
    return f"{told})"

"""`cut_blocks`: the grid of a call along two axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shmcompute.chunking import Arguments, Block, ChunkGenerator, Grid, PaddedBlock, grid_schedule
from shmcompute.chunking import cut_ends_of_blocks as cut_ends
from shmcompute.system import cores
from shmcompute.system.addresses import address


def cut_blocks(
    links: Sequence[Arguments],
    workers: int,
    schedule: str,
    chunksize: Any,
    *,
    drawing: int,
    retries: bool,
) -> Grid:
    """Cut what the kernels of a call share.

    By default a block, with all that is cut along both axes, stays in half of a core's second-level
    cache: panels that go along one axis pass by it. With retries Python takes some steps a block,
    so blocks are larger.

    Parameters
    ----------
    drawing : int
        Blocks where kernels draw random numbers. Neither the machine nor how the call is run may
        then decide how it is cut.
    """
    shape = links[0].length, links[0].width or 0
    bound = [argument for link in links for argument in link.bound]
    blocks = [argument for argument in bound if isinstance(argument, Block)]
    if any(ChunkGenerator in link.classes for link in links):
        area = max(1, shape[0] * shape[1])
        cutting = grid_schedule.Cutting(1, area, blocks=drawing)
        grid = cutting.cut(shape, "static", chunksize)
        return Grid(grid.rows, grid.columns, workers)
    room = 2 * cores.cache() if retries else cores.cache() // 2
    cutting = grid_schedule.Cutting(
        workers, room // _bytes_an_element(blocks), by_columns=_by_columns(blocks)
    )
    grid = cutting.cut(shape, schedule, chunksize)
    padded = [block for block in blocks if isinstance(block, PaddedBlock)]
    return cut_ends(grid, padded) if padded else grid


def _bytes_an_element(blocks: Sequence[Block]) -> int:
    """Bytes for each row and column, of all that is cut along both; each array counted once."""
    both = {address(block.view): block for block in blocks if None not in block.axes}
    return max(1, sum(map(_bytes_of, both.values())))


def _bytes_of(block: Block) -> int:
    first, second = (block.view.shape[axis] for axis in block.axes if axis is not None)
    return int(block.view.nbytes // max(1, first * second))


def _by_columns(blocks: Sequence[Block]) -> bool:
    """Whether what lies together in memory, of what is written, goes along the first axis."""
    for block in blocks:
        if block.writes and None not in block.axes:
            first, second = (
                abs(block.view.strides[axis]) for axis in block.axes if axis is not None
            )
            return bool(first < second)
    return False

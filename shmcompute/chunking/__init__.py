"""What each chunk of a call sees: markers, bound arguments, chunks, aliasing."""

from shmcompute.chunking.aliasing import Access, address, check_chain, crossing, overlap
from shmcompute.chunking.arguments import (
    VALUES,
    Arguments,
    Bound,
    ChunkStart,
    Constant,
    Number,
    Part,
    Scalar,
    Values,
    bind,
    bytes_of,
    is_number,
)
from shmcompute.chunking.markers import MARKERS, offset, read, split, whole
from shmcompute.chunking.schedule import Chunk, chunks

__all__ = [
    "MARKERS",
    "VALUES",
    "Access",
    "Arguments",
    "Bound",
    "Chunk",
    "ChunkStart",
    "Constant",
    "Number",
    "Part",
    "Scalar",
    "Values",
    "address",
    "bind",
    "bytes_of",
    "check_chain",
    "chunks",
    "crossing",
    "is_number",
    "offset",
    "overlap",
    "read",
    "split",
    "whole",
]

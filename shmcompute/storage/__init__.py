"""Segments: blocks of memory that several processes can map; see README.md."""

from shmcompute.storage import exclusive, reaper, segment_cache, shm, shm_space
from shmcompute.storage.factory import adopt, attach, create, give, map_handle, open_file
from shmcompute.storage.layout import Layout
from shmcompute.storage.npy_file import in_mapping_of
from shmcompute.storage.segment import Handle, Segment, live, locate, mapped

__all__ = [
    "Handle",
    "Layout",
    "Segment",
    "adopt",
    "attach",
    "create",
    "exclusive",
    "give",
    "in_mapping_of",
    "live",
    "locate",
    "map_handle",
    "mapped",
    "open_file",
    "reaper",
    "segment_cache",
    "shm",
    "shm_space",
]

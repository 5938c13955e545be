"""Work handed out by ringing a bell in shared memory; see README.md."""

from shmcompute import config, words
from shmcompute.backends.doorbell.bell import Bell
from shmcompute.backends.doorbell.block import Block
from shmcompute.backends.doorbell.control import NOTE, prepare
from shmcompute.backends.doorbell.seat import Seat, Table, spin, unveiled

__all__ = ["NOTE", "Bell", "Block", "Seat", "Table", "prepare", "spin", "unveiled", "wanted"]


def wanted() -> bool:
    """Whether work is handed out so, here: else by pipe, or by the standard library's executor."""
    default = "doorbell" if words.available() else "pipe"
    return config.chosen("channel", None, "CHANNEL", config.CHANNELS, default) == "doorbell"

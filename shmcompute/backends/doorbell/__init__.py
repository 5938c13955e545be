"""Work handed out by ringing a bell in shared memory; see README.md."""

from shmcompute.backends.doorbell.caller import DoorbellCaller
from shmcompute.backends.doorbell.control_block import NOTE, prepare, prepared
from shmcompute.backends.doorbell.mapping import ControlMapping
from shmcompute.backends.doorbell.worker import (
    SEGMENTS,
    DoorbellHandle,
    DoorbellWorker,
    NativePlanTable,
    no_bases,
    spin,
    unveil,
)

__all__ = [
    "NOTE",
    "SEGMENTS",
    "ControlMapping",
    "DoorbellCaller",
    "DoorbellHandle",
    "DoorbellWorker",
    "NativePlanTable",
    "no_bases",
    "prepare",
    "prepared",
    "spin",
    "unveil",
]

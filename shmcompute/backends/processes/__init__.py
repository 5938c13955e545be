"""Worker processes: isolated, persistent, attached to the arrays they work on; see README.md.

::

    caller                                           worker (one of several)
    Processes.run(plan)          backend.py          worker_main(), Worker     worker/
      hold: replace the dead     worker_group.py
      pack(plan) -> bytes        protocol/pickling
      Load(plan) --------------> protocol/pipe ----> unpack, attach, keep
      ring =====================> doorbell/ =======> machine code, or plan.run_chunk(number)
      wait <===================== doorbell/ ======== answered; then a Failure by pipe, if any
    Processes.submit(...)        task_queue.py, dispatcher.py
      Attend, Tasks ---------------------------> unpack, call; Result or Failure for each
"""

from typing import TYPE_CHECKING, Any

from shmcompute.backends.processes.start import start_server_ahead

if TYPE_CHECKING:
    from shmcompute.backends.processes.backend import Processes
    from shmcompute.backends.processes.protocol.kernel_bytes import (
        dump_kernel,
        fingerprint,
        load_kernel,
    )

__all__ = [
    "Processes",
    "dump_kernel",
    "fingerprint",
    "load_kernel",
    "protocol",  # for those whose workers are not started here
    "start_server_ahead",
]


def __getattr__(name: str) -> Any:
    """Import after the fork server was told to start, which takes longer than this."""
    if name == "Processes":
        from shmcompute.backends.processes.backend import Processes  # noqa: PLC0415

        return Processes
    if name in ("dump_kernel", "fingerprint", "load_kernel"):
        from shmcompute.backends.processes.protocol import kernel_bytes  # noqa: PLC0415

        return getattr(kernel_bytes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What workers answer to messages, and what it means that one does not."""

from __future__ import annotations

from shmcompute.backends.processes.protocol import Lost, messages, pickling
from shmcompute.backends.processes.worker_process import WorkerProcess
from shmcompute.errors import (
    KernelSerializationError,
    KernelTimeoutError,
    ShmComputeError,
    WorkerLostError,
)
from shmcompute.system import interrupts


def receive(worker: WorkerProcess, deadline: float | None) -> None:
    """Receive the answer to a message; an error if there is none, or it says one."""
    left = interrupts.seconds_to(deadline)
    if not interrupts.wait([worker.pipe.fd, worker.end], left):
        raise KernelTimeoutError(
            f"worker {worker.process.pid} did not answer in time; nothing has run"
        )
    said = answer(worker, "took a plan", deadline)
    if isinstance(said, messages.Loaded) and said.failure is not None:
        raise _refused(pickling.unpack_error(said.failure))


def answer(worker: WorkerProcess, doing: str, deadline: float | None) -> object:
    """The answer that a worker owes, which is there. Its death is an error of the call."""
    try:
        return worker.pipe.answer(deadline)
    except Lost:
        how = worker.ended()
        raise WorkerLostError(
            f"worker {worker.process.pid} was lost ({how}) while it {doing}; nothing has run. "
            "The next call starts another one",
            worker.process.exitcode,
        ) from None


def _refused(error: BaseException) -> ShmComputeError:
    """What a worker said when a plan did not unpack there, as an error of the call."""
    if isinstance(error, ShmComputeError):
        return error
    wrapped = KernelSerializationError(
        f"a worker can't unpack this call: {type(error).__name__}: {error}. What the kernel "
        "imports must be importable there too; nothing has run"
    )
    wrapped.__cause__ = error.__cause__
    return wrapped

"""`DaskRun`: one call by the workers of a Dask cluster.

Only the thread that calls writes to the arrays, and each chunk once; see `dask`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import dask
import numpy as np

from shmcompute.backends.base import Report, overrun
from shmcompute.backends.dask_tasks import At, First, Made, pack, run_chunk
from shmcompute.backends.processes.protocol import exception_pickling
from shmcompute.backends.processes.protocol.messages import Failure
from shmcompute.chunking import Bound, ChunkCall, Cut, OutputRow, ScratchRow, Values, WholeArray
from shmcompute.errors import WorkerLostError
from shmcompute.plans import Plan
from shmcompute.system.addresses import address
from shmcompute.system.call_context import call_context
from shmcompute.system.interrupts import SLICE, deadline_of
from shmcompute.typing import Array

LARGE = 1 << 16  # bytes: what all chunks see goes to each worker once if it is larger
TIMES = 3  # that what all chunks see may be lost with all workers that have it


class _Sent(NamedTuple):
    """An array that a chunk sees, and where it goes: several arguments may be one array."""

    key: tuple[Any, ...]
    view: Array
    writes: bool
    fetched: bool


class _Pending(NamedTuple):
    """A chunk on its way, and what it is to write."""

    number: int
    written: list[Array]
    round: int  # what all chunks see was sent so often


class DaskRun:
    """One call: its chunks on their way, and the one thread that writes what they bring."""

    def __init__(
        self, client: Any, plan: Plan, values: Values, kernels: Sequence[Any], first: First | None
    ) -> None:
        self._client, self._plan, self._values = client, plan, values
        self._kernels, self._first, self._context = kernels, first, call_context()
        self._whole: dict[tuple[Any, ...], Any] = {}  # what all chunks see: sent once
        self._round = 0
        self._pending: dict[Any, _Pending] = {}
        self._ended: SimpleQueue[Any] = SimpleQueue()  # tasks, by whichever thread hears of it

    def all(self, ahead: int, timeout: float | None, report: Report | None) -> None:
        """Run all chunks, so many of them on their way at once."""
        deadline = math.inf if timeout is None else deadline_of(timeout)
        numbers = iter(range(len(self._plan.chunks)))
        done: set[int] = set()
        while True:
            while len(self._pending) < ahead and (number := next(numbers, None)) is not None:
                self._send(number)
            if not self._pending:
                return
            for future in self._finished(deadline):
                self._take(future, done)
            if report is not None:
                report(len(done))
            if time.monotonic() > deadline and len(done) < len(self._plan.chunks):
                left = [i for i in range(len(self._plan.chunks)) if i not in done]
                raise overrun(self._plan, timeout, left)

    def _send(self, number: int) -> None:
        call = self._plan._chunk_call(number, self._values)
        sent: dict[tuple[Any, ...], Any] = {}
        written: dict[tuple[Any, ...], Array] = {}
        links = []
        for link in self._plan.links:
            arguments, earlier = [], set(written)
            for one in link.arguments.bound:
                seen = _seen(one, call)
                if isinstance(seen, _Sent):
                    whole = isinstance(one, WholeArray)
                    if seen.key not in sent or (seen.fetched and seen.key not in earlier):
                        sent[seen.key] = self._content(seen, whole=whole)
                    if seen.writes:
                        written[seen.key] = seen.view
                    arguments.append(At(list(sent).index(seen.key)))
                else:
                    arguments.append(seen)
            links.append(arguments)
        returned = [list(sent).index(key) for key in written]
        packed = pack((links, self._context), lambda: f"an argument of kernel {self._plan.name}")
        future = self._submitted(number, packed, list(sent.values()), returned)
        self._pending[future] = _Pending(number, list(written.values()), self._round)
        future.add_done_callback(self._ended.put)

    def _submitted(self, number: int, packed: bytes, arrays: list[Any], returned: list[int]) -> Any:
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TiB"}):
            return self._client.submit(
                run_chunk, self._first, self._kernels, packed, arrays, returned, pure=False,
                key=f"shmcompute-chunk-{number}-{id(self):x}-{time.monotonic_ns():x}",
            )  # fmt: skip

    def _content(self, seen: _Sent, *, whole: bool) -> Any:
        """What goes to the worker for an array that its chunk sees."""
        if not seen.fetched:
            return Made(seen.view.shape, seen.view.dtype)
        return self._whole_array(seen) if whole and seen.view.nbytes > LARGE else seen.view

    def _whole_array(self, seen: _Sent) -> Any:
        if seen.key not in self._whole:
            # To all of them: what one worker has alone is lost with it.
            sent = self._client.scatter([np.array(seen.view)], broadcast=True, hash=False)
            self._whole[seen.key] = sent[0]
        return self._whole[seen.key]

    def _finished(self, deadline: float) -> Iterator[Any]:
        """Tasks that have ended; none if that takes long."""
        left = min(SLICE, max(0.0, deadline - time.monotonic()))
        with suppress(Empty):
            yield self._ended.get(timeout=left)
            while True:
                yield self._ended.get_nowait()

    def _take(self, future: Any, done: set[int]) -> None:
        """Write what a task has returned, or send its chunk again."""
        pending = self._pending[future]
        if future.status in ("cancelled", "lost"):
            self._again(future, pending)
            return
        answer = self._answer(future)
        if isinstance(answer, Failure):
            error = exception_pickling.unpack_error(answer)
            self._plan.blame(error, pending.number)
            raise error
        for view, content in zip(pending.written, answer, strict=True):
            view[...] = content
        del self._pending[future]
        done.add(pending.number)

    def _answer(self, future: Any) -> Any:
        try:
            return future.result()
        except Exception as error:
            if (found := self._lost_chunks(error)) is not None:
                raise found from error
            raise

    def _again(self, future: Any, pending: _Pending) -> None:
        """Send a chunk again: what all chunks see was lost with all the workers that had it."""
        if pending.round >= TIMES or not self._whole or self._client.status != "running":
            error = f"{future.status}, client {self._client.status}"
            raise self._lost_chunks(CancelledError(error)) or AssertionError
        if pending.round == self._round:
            self._whole.clear()
            self._round += 1
        del self._pending[future]
        self._send(pending.number)

    def _lost_chunks(self, error: Exception) -> WorkerLostError | None:
        found = lost(error, f"kernel {self._plan.name}")
        if found is None:
            return None
        chunks = sorted(self._plan.chunks[one.number] for one in self._pending.values())
        told = f"{found}; {len(chunks)} chunks on their way read as before (see .chunks)"
        return WorkerLostError(told, None, chunks)

    def cancel(self) -> None:
        """Nobody waits for what is left: what it returns is dropped."""
        if self._pending:
            self._client.cancel(list(self._pending), force=True)
            self._pending.clear()


def _seen(one: Bound, call: ChunkCall) -> Any:
    """What a chunk sees of an argument."""
    if isinstance(one, ScratchRow):
        return Made(one.shape, one.dtype)
    if isinstance(one, (Cut, WholeArray, OutputRow)):
        view = one.at(call)
        writes = isinstance(one, OutputRow) or one.writes
        key = address(view), view.shape, view.strides, view.dtype.str
        return _Sent(key, view, writes, fetched=getattr(one, "reads", True))
    return one.at(call)


def lost(error: BaseException | None, what: str) -> WorkerLostError | None:
    """The error of what Dask gave up, because of workers; None for other errors."""
    if type(error).__name__ not in ("KilledWorker", "CancelledError", "FutureCancelledError"):
        return None
    found = WorkerLostError(f"the cluster lost the workers that ran {what} ({error})")
    found.__cause__ = error
    return found

"""`Dask`: the workers of a Dask cluster, for calls on this process's own arrays.

Chunks travel as pure tasks: a worker calls the kernel on copies, and returns what it has written.
Only the calling thread writes to the arrays, and each chunk once. So Dask may run a task again,
or twice at once, when it loses a worker; one that was cut off and goes on harms nobody.
"""

from __future__ import annotations

import math
import secrets
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import dask
import numpy as np

from shmcompute.backends import local_cluster
from shmcompute.backends.base import Backend, Prospect, Report, Terms, overrun
from shmcompute.backends.dask_tasks import At, First, Made, pack, run_chunk, run_task
from shmcompute.backends.processes import dump_kernel, fingerprint
from shmcompute.backends.processes.protocol import exception_pickling, pickling
from shmcompute.backends.processes.protocol.messages import Failure
from shmcompute.backends.serial import Serial
from shmcompute.chunking import Bound, ChunkCall, Cut, OutputRow, ScratchRow, Values, WholeArray
from shmcompute.errors import WorkerLostError
from shmcompute.kernels import Kernel, NumbaKernel
from shmcompute.plans import Plan
from shmcompute.system.addresses import address
from shmcompute.system.call_context import call_context
from shmcompute.system.interrupts import SLICE, deadline_of
from shmcompute.tasks import Function, Initializer
from shmcompute.typing import Array

BY_DASK = "a task of Dask's calls it from Python, once for each chunk"
LARGE = 1 << 16  # bytes: what all chunks see goes to each worker once if it is larger
TIMES = 3  # that what all chunks see may be lost with all workers that have it
AHEAD = 2  # tasks for each thread of the cluster that are on their way at once


class _Sent(NamedTuple):
    """An array that a chunk sees, and where it goes: several arguments may be one array."""

    key: tuple[Any, ...]
    view: Array
    writes: bool
    fetched: bool


class Dask(Backend):
    """The workers of a `distributed.Client`, or of a cluster of this machine's own.

    Parameters
    ----------
    client : distributed.Client, optional
        By default one of a new cluster of `workers` processes on this machine, bound to loopback,
        which ends with the pool.
    """

    threaded = True  # kernels let go of the GIL: a worker of Dask's may have several threads
    caller_runs = False
    copies = True

    def __init__(
        self, workers: int, client: Any = None, *, initializer: Initializer | None = None
    ) -> None:
        self._own = local_cluster.local_client(workers) if client is None else None
        self._client = client if self._own is None else self._own
        self._initializer = initializer
        self._first = None if initializer is None else _packed_initializer(initializer)
        self._kernels: weakref.WeakKeyDictionary[Any, tuple[tuple[int, ...], bytes]]
        self._kernels = weakref.WeakKeyDictionary()
        self._checked = False

    @property
    def workers(self) -> int:  # type: ignore[override]  # it changes while workers come and go
        """How many threads the cluster's workers have in all, now."""
        return max(1, int(sum(self._client.nthreads().values())))

    @classmethod
    def prospect(cls, plan: Plan, terms: Terms) -> Prospect:  # noqa: ARG003  # others ask
        return Prospect(tuple(reason or BY_DASK for reason in plan.reasons))

    def admit(self, plan: Plan) -> None:
        for link in plan.links:
            for position, one in enumerate(link.arguments.bound):
                if isinstance(one, WholeArray) and one.writes:
                    raise TypeError(
                        f"argument {position} is shared(), to be written by all chunks, but the "
                        "workers of a Dask cluster see copies: choose another backend, or pass "
                        "sc.per_chunk(shape) and combine what chunks return"
                    )

    def run(
        self, plan: Plan, values: Values, timeout: float | None, report: Report | None = None
    ) -> None:
        if plan.sweeps is not None or plan.debug:  # these look into memory, which is here
            Serial(self._initializer).run(plan, values, timeout, report)
            return
        self.admit(plan)
        self._warn_of_others()
        kernels = [self._packed(link.kernel) for link in plan.links]
        run = _Run(self._client, plan, values, kernels, self._first)
        try:
            run.all(self.workers * AHEAD, timeout, report)
        finally:
            run.cancel()

    def _packed(self, kernel: Kernel) -> bytes:
        """A kernel as bytes; a jitted one is what it was when Numba compiled it."""
        if not isinstance(kernel, NumbaKernel) or kernel.function is not kernel.dispatcher:
            return dump_kernel(kernel)
        versions = tuple(map(id, kernel.dispatcher.overloads.values()))
        known = self._kernels.get(kernel.dispatcher)
        if known is None or known[0] != versions:
            known = self._kernels[kernel.dispatcher] = versions, dump_kernel(kernel)
        return known[1]

    def _warn_of_others(self) -> None:
        """Warn, once, of workers on hosts of another kind: their code rounds as it likes."""
        if self._checked:
            return
        self._checked = True
        found = self._client.run(fingerprint, on_error="ignore")
        others = sorted(address for address, one in found.items() if one != fingerprint())
        if others:
            warnings.warn(
                f"{len(others)} of {len(found)} workers of the cluster ({others[0]}, ...) have "
                "another CPU, C library, Python, NumPy or Numba than this process: they compile "
                "kernels anew, and the last bits of results may differ from chunk to chunk",
                RuntimeWarning,
                stacklevel=2,
            )

    def submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        call = function.function, args, keywords, call_context()
        result: Future[Any] = Future()
        try:
            packed = pack(call, lambda: f"{function.name}, or an argument of it,")
        except Exception as error:  # noqa: BLE001  # of this task alone, as in other pools
            result.set_exception(error)
            return result
        sent = self._client.submit(run_task, self._first, packed, pure=False)
        sent.add_done_callback(lambda done: _settle(result, done, function))
        result.add_done_callback(lambda result: _drop(result, sent))
        return result

    def ready(self, timeout: float | None = None) -> None:
        self._client.wait_for_workers(1, timeout=timeout)

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:  # tasks are Dask's
        self.close(wait=wait)

    def close(self, *, wait: bool = True) -> None:  # Dask knows its own end
        if self._own is not None:
            own, self._own = self._own, None
            local_cluster.close(own)


def _packed_initializer(initializer: Initializer) -> First:
    function, name = initializer.function.function, initializer.function.name
    call = pack((function, initializer.args), lambda: f"the initializer {name}")
    return First(secrets.token_hex(8), name, call)


def _settle(result: Future[Any], done: Any, function: Function) -> None:
    """Give a task's future what Dask's has."""
    if not result.set_running_or_notify_cancel():
        return
    try:
        answer = done.result()
        if isinstance(answer, Failure):
            raise exception_pickling.unpack_error(answer)
        result.set_result(pickling.unpack_result(answer, function))
    except BaseException as error:  # noqa: BLE001  # also one that says it was lost
        result.set_exception(_lost(error, function.name) or error)


def _drop(result: Future[Any], sent: Any) -> None:
    if result.cancelled():
        result.set_running_or_notify_cancel()  # who waits for several hears of it so
        sent.cancel()


def _lost(error: BaseException | None, what: str) -> WorkerLostError | None:
    """The error of what Dask gave up, because of workers; None for other errors."""
    if type(error).__name__ not in ("KilledWorker", "CancelledError", "FutureCancelledError"):
        return None
    lost = WorkerLostError(f"the cluster lost the workers that ran {what} ({error})")
    lost.__cause__ = error
    return lost


class _Pending(NamedTuple):
    """A chunk on its way, and what it is to write."""

    number: int
    written: list[Array]
    round: int  # what all chunks see was sent so often


class _Run:
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
            if (lost := self._lost_chunks(error)) is not None:
                raise lost from error
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
        lost = _lost(error, f"kernel {self._plan.name}")
        if lost is None:
            return None
        chunks = sorted(self._plan.chunks[one.number] for one in self._pending.values())
        told = f"{lost}; {len(chunks)} chunks on their way read as before (see .chunks)"
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

"""`Dask`: the workers of a Dask cluster, for calls on this process's own arrays.

Chunks travel as pure tasks: a worker calls the kernel on copies, and returns what it has written.
Only the calling thread writes to the arrays, and each chunk once. So Dask may run a task again,
or twice at once, when it loses a worker; one that was cut off and goes on harms nobody.
"""

from __future__ import annotations

import secrets
import warnings
from concurrent.futures import Future
from typing import Any

from shmcompute.backends import local_cluster
from shmcompute.backends.base import Backend, Prospect, Report, Terms
from shmcompute.backends.dask_run import DaskRun, lost
from shmcompute.backends.dask_tasks import First, pack, run_task
from shmcompute.backends.processes import dump_kernel, fingerprint
from shmcompute.backends.processes.protocol import exception_pickling, pickling
from shmcompute.backends.processes.protocol.messages import Failure
from shmcompute.backends.serial import Serial
from shmcompute.chunking import Values, WholeArray
from shmcompute.kernels import Kernel, NumbaKernel, PackedOnce
from shmcompute.plans import Plan
from shmcompute.system.call_context import call_context
from shmcompute.tasks import Function, Initializer

BY_DASK = "a task of Dask's calls it from Python, once for each chunk"
AHEAD = 2  # tasks for each thread of the cluster that are on their way at once


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
        kernels = [_packed(link.kernel) for link in plan.links]
        run = DaskRun(self._client, plan, values, kernels, self._first)
        try:
            run.all(self.workers * AHEAD, timeout, report)
        finally:
            run.cancel()

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


_kernels = PackedOnce()


def _packed(kernel: Kernel) -> bytes:
    """A kernel as bytes; a jitted one is what it was when Numba compiled it."""
    if not isinstance(kernel, NumbaKernel) or kernel.function is not kernel.dispatcher:
        return dump_kernel(kernel)
    return _kernels.of(kernel.dispatcher, lambda: dump_kernel(kernel))


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
        result.set_exception(lost(error, function.name) or error)


def _drop(result: Future[Any], sent: Any) -> None:
    if result.cancelled():
        result.set_running_or_notify_cancel()  # who waits for several hears of it so
        sent.cancel()

"""`Pool`: long-lived workers of one backend.

The file is long because a pool is one class, whose methods are documented for users.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, Never, NoReturn, Self, cast

from shmcompute import config
from shmcompute.backends import Backend, backend_class, make_backend
from shmcompute.errors import ClosedError, ForkedPoolError
from shmcompute.plans import PlanCache
from shmcompute.system import context, cores, daemon_threads
from shmcompute.system.context import inside_kernel
from shmcompute.tasks import CallQueue, Executor, Function, Initializer, TaskThreads
from shmcompute.typing import BackendName, StartMethodName

if TYPE_CHECKING:  # imported by who asks for it
    from shmcompute.backends.auto import Auto
    from shmcompute.tuning import Records

_open: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool(Executor):
    """Workers that run kernels and tasks; kept, since starting them costs more than most calls.

    It is a `concurrent.futures.Executor`, with `multiprocessing.pool.Pool`'s lazy maps.

    They start in the background: making a pool returns at once, `ready` waits.

    Parameters
    ----------
    workers : int, optional
        How many run at the same time. By default ``SHMCOMPUTE_WORKERS``, else the cores that
        affinity and cgroup grant this process.
    backend : {'processes', 'threads', 'serial', 'auto', 'dask'}, or a Backend
        Who they are: isolated processes, threads of this one, or the caller itself. In a worker,
        so within a task, always the caller itself. With ``'auto'`` each call gets what suits it
        best, by what calls like it have taken; workers are started when it could pay, or by
        `ready`; tasks go to processes. See docs/backends.md. With ``'dask'`` those of a cluster,
        which see copies of chunks. Any object of a subclass of `shmcompute.backends.Backend` does
        as well; the pool closes it.
    start_method : {'forkserver', 'spawn', 'fork'} or context, optional
        How processes start, by name or as `multiprocessing.get_context` returns it:
        ``SHMCOMPUTE_START_METHOD``, else ``forkserver`` on Linux and ``spawn`` elsewhere.
    caller_runs : bool
        Whether the calling thread is one of the `workers`, as OpenMP's main thread is. A crash in
        a kernel may then take the caller along, and a timeout is looked at between its chunks
        only. Threads always are so.
    threads_per_worker : int
        Threads that each worker process may use in Numba, OpenMP, MKL and OpenBLAS.
    pin : bool
        Whether each worker is bound to a core of its own, of those this process may use. It helps
        where chunks are to find their data in a core's cache again, and hurts where other programs
        want that core.
    initializer : callable, optional
        What each worker calls before it runs anything, also one that replaces another: a worker
        process when it starts; a thread, once, before it runs Python for the pool, be it the
        calling thread where that is one of the workers (threads, `caller_runs`, serial). It may
        come from anywhere, as kernels may. What it puts into globals of ``__main__`` is there for
        tasks and kernels, and the filters of warnings that it adds go before the caller's.
    initargs : tuple
        What it is called with; shared arrays travel as handles.
    max_tasks_per_child : int, optional
        How many tasks (of `submit` and the maps; a chunk of a map is one) a worker process does
        before another one takes its place, so that what they leak does not pile up. Calls of
        kernels don't count. By default as many as there are.
    client : distributed.Client, optional
        Of the cluster whose workers ``backend='dask'`` uses, and which it leaves open. By default
        one of `workers` processes on this machine, bound to loopback, that ends with the pool.
    **unknown
        There are no others; what other libraries call these is refused with the name here.

    Attributes
    ----------
    workers : int
        How many there are.
    pids : list of int
        Process ids of the worker processes, for debuggers and profilers.
    debug : bool
        Whether calls are debugged that do not say: ``SHMCOMPUTE_DEBUG`` when it was made.

    Raises
    ------
    ValueError, TypeError
        For a number below 1, or a word that is not known.
    KernelSerializationError
        If the initializer or its arguments can't be sent to worker processes.
    WorkerInitError
        Where the initializer fails, not here: of `ready`, of a call, of the future of a task. All
        tasks that wait fail of it, and the next call or task has it tried again.

    Examples
    --------
    >>> import numpy as np, shmcompute as sc
    >>> with sc.Pool(2, backend="threads") as pool, sc.SharedArray(np.ones(4)) as arr:
    ...     sc.parallel_apply(np.negative, arr, pool=pool)
    ...     print(arr.array)
    [-1. -1. -1. -1.]
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        backend: BackendName | Backend | None = None,
        start_method: StartMethodName | BaseContext | None = None,
        caller_runs: bool = False,
        threads_per_worker: int = 1,
        pin: bool = False,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int | None = None,
        client: Any = None,
        **unknown: Never,
    ) -> None:
        self.running: Backend = _unusable(ClosedError("this pool was not made"))
        self._own: Backend | None = None  # which this process is to close
        if unknown:
            config.refuse_unknown("Pool", unknown)
        self.debug = config.switched_on("DEBUG")
        self.plans = PlanCache()
        self.records: Records | None = None  # of what calls have taken, where it chooses by that
        self.submitted = CallQueue()  # calls that nobody waits for
        self._pid = os.getpid()
        self.backend, made = _named_backend(backend, client)
        settings: dict[str, Any] = {
            "threads_per_worker": config.count("threads_per_worker", threads_per_worker),
            "caller_runs": bool(caller_runs),
            "pin": bool(pin),
        }
        if pin:
            cores.check_pinning()
        if self.backend == "dask":
            _refuse_for_dask(**settings)
        count, method = worker_count(workers), _start_method(start_method)
        tasks = _max_tasks(max_tasks_per_child, backend)
        settings["initializer"] = _initializer(initializer, initargs)
        if made is None and self.backend == "auto":
            settings |= {"start_method": method, "max_tasks_per_child": tasks}
            made = self._auto_among(count, partial(type(self), count, **settings))
        elif made is None:
            settings |= {"max_tasks": tasks, "client": client}
            made = make_backend(self.backend, count, method, **settings)
        self.running = self._own = made
        self._max_workers = made.workers  # where Dask looks, as in concurrent.futures
        _open.add(self)

    def _auto_among(self, workers: int, of_kind: Callable[..., Pool]) -> Backend:
        """What chooses among pools of each kind."""
        from shmcompute.backends.auto import Auto  # noqa: PLC0415  # for who asks for it
        from shmcompute.tuning import Records  # noqa: PLC0415

        self.records = Records()
        make = partial(_made_for_auto, of_kind, self.submitted)
        return Auto(workers, _kinds(), make, start_seconds)

    def chooses_among(self, pool_of: Callable[[str], Pool], starts: Callable[[str], float]) -> None:
        """Choose among pools that others use, too, but for the serial one, which has no workers."""
        self._auto.borrow(pool_of, starts)

    @property
    def _auto(self) -> Auto[Pool]:
        return cast("Auto[Pool]", self.running)

    def candidate(self, backend: str) -> Pool:
        """Of a pool that chooses: the pool of that backend."""
        return self._auto.pool(backend)

    def made(self, backend: str) -> Pool | None:
        """The same, if it is there already."""
        found = self._auto.made(backend)
        return None if found is None or isinstance(found.running, _Unusable) else found

    def starts(self) -> Mapping[str, float]:
        """Of a pool that chooses: the backends, and the seconds that each takes to start, now."""
        return self._auto.starts()

    @property
    def workers(self) -> int:
        """How many chunks run at the same time."""
        return self.running.workers

    @property
    def pids(self) -> list[int]:
        """Process ids of the worker processes; empty for other backends."""
        return self.running.pids

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until every worker can take work.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait at most.

        Returns
        -------
        Pool
            Itself, so that ``with sc.Pool().ready() as pool`` works.
        """
        self.running.ready(timeout)
        return self

    def _submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        if inside_kernel() and not _exiting:  # it would wait for workers that wait for it
            return backend_class("serial")().submit(function, args, keywords)
        self.check_open()
        return self.running.submit(function, args, keywords)

    def check_open(self) -> None:
        """Raise if it takes no more tasks and submitted calls."""
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        self.running.workers  # noqa: B018  # raises ClosedError, ForkedPoolError

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and tasks; when those there are have ended, end the workers.

        Parameters
        ----------
        wait : bool
            Whether to return when all that is done, or at once.
        cancel_futures : bool
            Whether tasks and submitted calls that were not begun are cancelled.
        """
        self._close()
        self.submitted.close(cancel=cancel_futures)
        if self._own is not None:
            end = partial(self._own.shutdown, wait=wait, cancel_futures=cancel_futures)
            self.submitted.finish(end, wait=wait)
            if wait:
                self._own = None

    def _close(self) -> None:
        """Refuse to be used from now on."""
        if not isinstance(self.running, _Unusable):
            self.running = _unusable(ClosedError("this pool is closed; make another one"))
            self.plans = PlanCache()  # whose notes may know workers

    def close(self) -> None:
        """Wait for calls, submitted ones too, and for all tasks; end the workers. Idempotent."""
        self.shutdown()

    def terminate_workers(self) -> None:
        """End the worker processes now (SIGTERM), whatever they do, and take no more work.

        Tasks that were not begun are cancelled; those that run, and a call that runs, raise
        `WorkerLostError`. It does not wait. As in `concurrent.futures` of Python 3.14.

        Raises
        ------
        NotImplementedError
            If the workers are no processes.

        Examples
        --------
        >>> import time, shmcompute as sc
        >>> with sc.Pool(2) as pool:
        ...     sleeping = pool.map(time.sleep, [60] * 10)
        ...     pool.terminate_workers()
        """
        self._end_workers(signal.SIGTERM)

    def kill_workers(self) -> None:
        """The same by SIGKILL, also of workers that are stopped or handle SIGTERM."""
        self._end_workers(signal.SIGKILL)

    def _end_workers(self, number: int) -> None:
        if self._own is not None:
            if self.backend not in ("threads", "serial"):  # these refuse, and stay as they are
                self.submitted.close(cancel=True)
            self._own.end_workers(number)
            self._close()

    def _end(self) -> None:
        """The program ends, and its tasks have."""
        closed = isinstance(self.running, _Unusable)
        self._close()
        if self._own is not None and not closed:
            self._own.close(wait=False)

    def __enter__(self) -> Self:
        self.running.workers  # noqa: B018  # a closed pool is not entered again
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Pool stays in its process; a task or kernel that calls parallel_apply, or makes a "
            "Pool of its own, runs serially what it asks for"
        )

    def __repr__(self) -> str:
        closed = isinstance(self.running, _Unusable)
        state = "closed" if closed else f"workers={self.running.workers}"
        return f"Pool(backend={self.backend!r}, {state})"


def default_start_method() -> StartMethodName:
    """The start method where neither argument nor environment names one."""
    known = multiprocessing.get_all_start_methods()
    return "forkserver" if sys.platform == "linux" and "forkserver" in known else "spawn"


def _kinds() -> tuple[str, ...]:
    """The backends among which calls of this process choose."""
    kinds = "serial", "threads", "processes"
    return kinds if possible_backend() == "processes" else kinds[:2]


def _made_for_auto(of_kind: Callable[..., Pool], submitted: CallQueue, kind: str) -> Pool:
    """A pool of one kind, of one that chooses; submitted calls have one order in all of them."""
    if kind != "processes":
        of_kind = partial(of_kind, max_tasks_per_child=None)
    made = of_kind(backend=kind) if kind != "serial" else of_kind(backend=kind, pin=False)
    if kind == "serial":
        made.running.threaded = True  # the machine code that threads run is compiled once for both
    made.submitted = submitted
    return made


def start_seconds(kind: str) -> float:
    """What the first call of a kind waits for in this process."""
    from shmcompute.backends.auto import doorbell_is_loaded  # noqa: PLC0415  # for auto only
    from shmcompute.tuning import START  # noqa: PLC0415

    return 0.0 if kind == "threads" and doorbell_is_loaded() else START[kind]


def _named_backend(
    backend: BackendName | Backend | None, client: Any
) -> tuple[str, Backend | None]:
    """What a pool's backend is called; and it, if it was given."""
    given = backend if isinstance(backend, Backend) else None
    asked = cast("BackendName | None", backend if given is None else None)
    name: str = config.chosen("backend", asked, "BACKEND", config.CHOICES, "processes")
    if client is not None and (given is not None or name != "dask"):
        raise ValueError('client: only a pool of backend="dask" has one')
    if given is not None:
        return type(given).__name__, given
    # Within a worker all is run by the task or kernel itself.
    return "serial" if context.in_worker else name, None


def _refuse_for_dask(*, threads_per_worker: int, caller_runs: bool, pin: bool) -> None:
    config.refuse_given(
        'Pool(backend="dask")', "Dask's workers are as their cluster was made",
        caller_runs=caller_runs or None, pin=pin or None,
        threads_per_worker=threads_per_worker if threads_per_worker > 1 else None,
    )  # fmt: skip


def possible_backend() -> BackendName:
    """That of a call for which nobody asks for another."""
    # Of daemonic processes, such as workers of multiprocessing.Pool, there is often one a core.
    return "threads" if multiprocessing.current_process().daemon else "processes"


def worker_count(workers: int | None) -> int:
    """How many workers a pool has: as many as are asked for, or as there are cores."""
    if workers is not None:
        hint = "; leave it out for as many as there are cores that this process may use"
        return config.count("workers", workers, hint=hint)
    asked = config.workers()
    return cores.granted() if asked is None else asked


def _initializer(
    function: Callable[..., object] | None, args: tuple[Any, ...]
) -> Initializer | None:
    if function is None or isinstance(function, Initializer):  # that of a pool that chooses
        return function
    return Initializer(function, args)


def _max_tasks(tasks: int | None, backend: str | Backend | None) -> int | None:
    if tasks is None:
        return None
    if isinstance(backend, str) and backend not in ("processes", "auto"):
        raise ValueError(
            f"max_tasks_per_child: only worker processes are replaced, and backend={backend!r} has "
            "none; leave it out"
        )
    return config.count("max_tasks_per_child", tasks)


class _Unusable:
    """Stands where a backend was: each use raises."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> NoReturn:
        raise type(self._error)(*self._error.args)


def _unusable(error: Exception) -> Backend:
    return cast(Backend, _Unusable(error))


@atexit.register
def _close_all() -> None:
    for pool in list(_open):
        pool._end()  # a daemon thread may be in a call that does not end


def _exit() -> None:
    global _exiting
    _exiting = True
    TaskThreads.end_all()
    daemon_threads.end_silently()


# The standard library's executors have it so, too: called before threads are waited for.
_exiting = False
if hasattr(threading, "_register_atexit"):
    threading._register_atexit(_exit)


def _start_method(given: str | BaseContext | None) -> str:
    """That of a context, if it is one."""
    of_context = getattr(given, "get_start_method", None)
    asked = cast("StartMethodName | None", given if of_context is None else of_context())
    methods = config.START_METHODS
    return config.chosen("start method", asked, "START_METHOD", methods, default_start_method())


def _after_fork() -> None:
    """In a child, which does not have the workers of its parent's pools."""
    for pool in list(_open):
        pool.submitted = CallQueue()
        if pool.backend != "serial":
            pool._own = None
            if not isinstance(pool.running, _Unusable):
                pool.running = _unusable(_forked(pool._pid))


def _forked(pid: int) -> ForkedPoolError:
    return ForkedPoolError(
        f"this pool belongs to process {pid}; process {os.getpid()} was forked from it and must "
        "make its own: shmcompute.Pool(...)"
    )


os.register_at_fork(after_in_child=_after_fork)

"""`Pool`: long-lived workers of one backend, and the default pool."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
import weakref
from concurrent.futures import Future
from multiprocessing.context import BaseContext
from typing import Any, NoReturn, Self

from shmcompute import config, cores
from shmcompute.backends.base import Backend
from shmcompute.call import Function
from shmcompute.errors import ClosedError, ForkedPoolError
from shmcompute.executor import Executor
from shmcompute.plan import inside_kernel
from shmcompute.recent import Recent
from shmcompute.storage import warm

_open: weakref.WeakSet[Pool] = weakref.WeakSet()
_forks = 0  # between the first process and this one; quicker to ask than the process id


class Pool(Executor):
    """Workers that run kernels and tasks; kept, since starting them costs more than most calls.

    It is a `concurrent.futures.Executor`, with `multiprocessing.pool.Pool`'s lazy maps.

    They start in the background: making a pool returns at once, `ready` waits.

    Parameters
    ----------
    workers : int, optional
        How many run at the same time. By default ``SHMCOMPUTE_WORKERS``, else the cores that
        affinity and cgroup grant this process.
    backend : {'processes', 'threads', 'serial'}
        Who they are: isolated processes, threads of this one, or the caller itself. In a worker,
        so within a task, always the caller itself.
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
        backend: str | None = None,
        start_method: str | BaseContext | None = None,
        caller_runs: bool = False,
        threads_per_worker: int = 1,
        pin: bool = False,
    ) -> None:
        self._backend: Backend | None = None
        self.debug = config.switched_on("DEBUG")
        self._ending: Backend | None = None  # shut down without waiting for its end
        self.recent = Recent()
        self._pid, self._forks = os.getpid(), _forks
        self.backend = config.chosen("backend", backend, "BACKEND", config.BACKENDS, "processes")
        if config.in_worker:  # where all is run by the task or kernel itself
            self.backend = "serial"
        method = config.chosen(
            "start method",
            _named(start_method),
            "START_METHOD",
            config.START_METHODS,
            default_start_method(),
        )
        threads = config.count("threads_per_worker", threads_per_worker)
        if pin:
            cores.check_pinning()
        chosen = _workers(workers), method, threads, bool(caller_runs), bool(pin)
        self._backend = _made(self.backend, *chosen)
        _open.add(self)

    @property
    def running(self) -> Backend:
        """The backend behind it."""
        backend = self._backend
        if backend is None:
            raise ClosedError("this pool is closed; make another one")
        if self._forks != _forks and self._foreign():
            raise ForkedPoolError(
                f"this pool belongs to process {self._pid}; process {os.getpid()} was forked from "
                "it and must make its own: shmcompute.Pool(...)"
            )
        return backend

    def _foreign(self) -> bool:
        """Whether this is the copy in a forked child, which has the pool's workers not."""
        return self.backend != "serial" and self._forks != _forks

    @property
    def workers(self) -> int:
        """How many chunks run at the same time."""
        return self.running.workers

    @property
    def pids(self) -> list[int]:
        """Process ids of the worker processes; empty for other backends."""
        return self.running.pids

    def ready(self, timeout: float | None = None) -> Self:
        """Wait until every worker can take work, at most `timeout` seconds."""
        self.running.ready(timeout)
        return self

    def _submit(
        self, function: Function, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Future[Any]:
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if inside_kernel():  # it would wait for workers that wait for it
            return default_pool("serial").running.submit(function, args, keywords)
        return self.running.submit(function, args, keywords)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls and tasks; when those there are have ended, end the workers.

        Parameters
        ----------
        wait : bool
            Whether to return when all that is done, or at once.
        cancel_futures : bool
            Whether tasks that were not begun are cancelled.
        """
        backend = self._backend or self._ending
        self._backend, self._ending = None, backend
        if backend is not None and not self._foreign():
            backend.shutdown(wait=wait, cancel_futures=cancel_futures)
            self._ending = None if wait else backend

    def close(self) -> None:
        """Wait for the call that runs and for all tasks, then end the workers. Idempotent."""
        self.shutdown()

    def _end(self) -> None:
        """The program ends, and its tasks have."""
        backend, self._backend = self._backend, None
        if backend is not None and not self._foreign():
            backend.close(wait=False)

    def __enter__(self) -> Self:
        self.running  # noqa: B018  # a closed pool is not entered again
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Pool stays in its process; a task or kernel that calls parallel_apply, or makes a "
            "Pool of its own, runs serially what it asks for"
        )

    def __repr__(self) -> str:
        state = "closed" if self._backend is None else f"workers={self._backend.workers}"
        return f"Pool(backend={self.backend!r}, {state})"


def default_start_method() -> str:
    """The start method where neither argument nor environment names one."""
    known = multiprocessing.get_all_start_methods()
    return "forkserver" if sys.platform == "linux" and "forkserver" in known else "spawn"


def _workers(workers: int | None) -> int:
    if workers is not None:
        return config.count("workers", workers)
    said = config.setting("WORKERS")
    if said is None:
        return cores.granted()
    try:
        return config.count("workers", int(said))
    except ValueError as error:
        raise ValueError(f"SHMCOMPUTE_WORKERS={said!r}: expected a number of at least 1") from error


def _made(
    backend: str, workers: int, method: str, threads: int, caller_runs: bool, pin: bool
) -> Backend:
    # Imported for who uses them: together they take as long as all the rest.
    # ruff: noqa: PLC0415
    if backend == "serial":
        from shmcompute.backends.serial import Serial

        return Serial()
    if backend == "processes":
        from shmcompute.backends.processes import launch

        if workers > caller_runs:
            launch.ahead(method)  # which takes longer than the rest of the imports
        from shmcompute.backends.processes.supervisor import Processes

        return Processes(workers, method, threads=threads, caller_runs=caller_runs, pin=pin)
    from shmcompute.backends import doorbell

    if doorbell.wanted():
        from shmcompute.backends.team import Team

        return Team(workers, pin=pin)
    from shmcompute.backends.threads import Threads

    return Threads(workers, caller_runs=caller_runs)


_defaults: dict[str, Pool] = {}  # by backend
_defaults_of = os.getpid()
_making = threading.Lock()


def default_pool(backend: str | None = None) -> Pool:
    """The pool that calls without one share, made at first use, anew in a forked child."""
    global _defaults_of
    name = config.chosen("backend", backend, "BACKEND", config.BACKENDS, _possible())
    with _making:
        if _defaults_of != os.getpid():
            _defaults_of = os.getpid()
            _defaults.clear()
        pool = _defaults.get(name)
        if pool is None or pool._backend is None:
            pool = _defaults[name] = Pool(backend=name)
        return pool


def _possible() -> str:
    # A daemonic process, such as a worker of multiprocessing.Pool, may start no processes.
    return "threads" if multiprocessing.current_process().daemon else "processes"


def shutdown() -> None:
    """End the default pools, and give back memory that is kept warm for new arrays.

    The next call without a pool makes another one.
    """
    with _making:
        pools = list(_defaults.values()) if _defaults_of == os.getpid() else []
        _defaults.clear()
    for pool in pools:
        pool.close()
    warm.release()


@atexit.register
def _close_all() -> None:
    for pool in list(_open):
        pool._end()  # a daemon thread may be in a call that does not end


def _exit() -> None:
    global _exiting
    _exiting = True


# The standard library's executors have it so, too: called before threads are waited for.
_exiting = False
if hasattr(threading, "_register_atexit"):
    threading._register_atexit(_exit)


def _named(start_method: str | BaseContext | None) -> str | None:
    """The start method of a context, if it is one."""
    asked = getattr(start_method, "get_start_method", None)
    return start_method if asked is None else asked()  # type: ignore[return-value]


def _after_fork() -> None:
    global _making, _forks
    _making = threading.Lock()
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

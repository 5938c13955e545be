"""CPython's own tests of executors, with `Pool` as the executor.

They come with Python, where its tests were installed. Left out is what looks into private parts, or
promises what `Pool` does not:

`test_max_workers_negative`
    Our parameter is called ``workers``, and the message says so.
`ProcessPoolExecutorTest`, `ThreadPoolExecutorTest`, but `MapChunksize` below
    They read ``_processes``, ``_max_workers``, ``_executor_manager_thread`` and the like, or break
    the pool by a worker's death, where ours goes on, or pass ``max_tasks_per_child``, which we do
    not have. test_executor.py has what they are about: tracebacks, deaths, arguments let go of.
`InitializerMixin`, `FailingInitializerMixin`
    There is no ``initializer``.
`test_interpreter_shutdown`, `test_submit_after_interpreter_shutdown`, `test_hang_gh83386`
    They import the executor from `concurrent.futures`, by its name. test_executor.py has them.
`test_..._at_task_unpickle` but the crash, `test_..._result_unpickle_in_result_handler`
    What does not unpickle is an error of that task, where the standard library's pool breaks.
`test_shutdown_deadlock_pickle`, `test_gh105829_...`
    They join or replace private parts of ProcessPoolExecutor.
`test_map_submits_without_iteration`, for processes
    Its tasks write to a list of the caller's.
What waits, for serial pools (`WAITING`)
    What was submitted is done, so nothing is pending.

The default suite runs them on worker processes by the fork server; what sleeps long, and all other
backends and start methods, are soak tests.
"""

from __future__ import annotations

import pickle
from concurrent.futures import BrokenExecutor

import pytest

import shmcompute as sc

pytest.importorskip(
    "test.test_concurrent_futures.executor",
    reason="Python came without its tests, or is older than their present form (3.12)",
)

from test.test_concurrent_futures import (  # noqa: E402
    executor,
    test_as_completed,
    test_deadlock,
    test_process_pool,
    test_shutdown,
    test_thread_pool,
    test_wait,
    util,
)

PRIVATE = {"test_max_workers_negative"}
BY_NAME = {
    "test_interpreter_shutdown",
    "test_submit_after_interpreter_shutdown",
    "test_hang_gh83386",
}
UNPICKLE = {
    "test_exit_at_task_unpickle",
    "test_error_at_task_unpickle",
    "test_error_during_result_unpickle_in_result_handler",
    "test_exit_during_result_unpickle_in_result_handler",
    "test_shutdown_deadlock_pickle",
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full",
}
WAITING = {
    "test_first_completed",
    "test_first_completed_some_already_completed",
    "test_first_exception",
    "test_first_exception_some_already_complete",
    "test_first_exception_one_already_failed",
    "test_future_times_out",
    "test_timeout",
    "test_zero_timeout",
    "test_map_timeout",
    "test_cancel_futures",
    "test_hang_gh94440",
}
SLOW = {
    "test_map_timeout",
    "test_first_exception",
    "test_first_exception_one_already_failed",
    "test_duplicate_futures",
}


def _made(name, backend, waiting=None, workers=2, **keywords):
    """The standard library's mixin for an executor of ours."""

    class Executor(sc.Pool):
        def __init__(self, max_workers=None, mp_context=None):
            how = {"start_method": mp_context} if backend == "processes" else {}
            super().__init__(max_workers, backend=backend, **how)
            self.ready()  # else a shutdown that cancels may find that nothing was begun

    class Mixin(util.ExecutorMixin):
        executor_type = Executor
        worker_count = workers

        def setUp(self):
            with pytest.MonkeyPatch.context() as patch:
                if waiting is not None:
                    patch.setenv("SHMCOMPUTE_WAIT", waiting)
                super().setUp()

    for key, value in keywords.items():
        setattr(Mixin, key, value)
    return name, Mixin


EXECUTORS = [
    _made("Forkserver", "processes", ctx="forkserver"),
    _made("Fork", "processes", ctx="fork"),
    _made("Spawn", "processes", ctx="spawn"),
    _made("Pipe", "processes", "pipe", ctx="forkserver"),
    _made("Threads", "threads"),
    _made("ThreadsPipe", "threads", "pipe"),
    _made("Serial", "serial"),
]


class MapChunksize:
    test_map_chunksize = test_process_pool.ProcessPoolExecutorTest.test_map_chunksize
    test_map_submits_without_iteration = (
        test_thread_pool.ThreadPoolExecutorTest.test_map_submits_without_iteration
    )


MIXINS = {
    "Executor": executor.ExecutorTest,
    "Wait": test_wait.WaitTests,
    "AsCompleted": test_as_completed.AsCompletedTests,
    "Shutdown": test_shutdown.ExecutorShutdownTest,
    "Deadlock": test_deadlock.ExecutorDeadlockTest,
    "Chunks": MapChunksize,
}


def _case(what, mixin, name, executor_mixin):
    """A test case of the standard library's, without what is left out."""
    left = PRIVATE | BY_NAME | UNPICKLE | (WAITING if name == "Serial" else set())
    if name not in ("Threads", "ThreadsPipe", "Serial"):
        left = left | {"test_map_submits_without_iteration"}  # its task writes to a local list
    without = dict.fromkeys(left & set(dir(mixin)))
    case = type(f"{name}{what}Test", (mixin, executor_mixin, util.BaseTestCase), without)
    sleeps = what in ("Wait", "AsCompleted")
    if name not in ("Forkserver", "Threads", "Serial") or (name != "Forkserver" and sleeps):
        return pytest.mark.soak(case)
    for slow in SLOW & set(dir(mixin)) - left:
        setattr(case, slow, pytest.mark.soak(getattr(case, slow)))
    return case


for _what, _mixin in MIXINS.items():
    for _name, _executor in EXECUTORS:
        if _what != "Deadlock" or hasattr(_executor, "ctx"):
            _test = _case(_what, _mixin, _name, _executor)
            globals()[_test.__name__] = _test
            del _test


@pytest.fixture(autouse=True)
def the_errors_of_ours(monkeypatch):
    """A task whose worker died fails with a BrokenExecutor; BrokenProcessPool says more."""
    monkeypatch.setattr(test_deadlock, "BrokenProcessPool", BrokenExecutor)
    monkeypatch.setattr(test_deadlock, "PicklingError", pickle.PicklingError)

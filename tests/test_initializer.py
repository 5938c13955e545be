"""`Pool(initializer=...)`: each worker calls it first, and none runs without."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import warnings
from concurrent.futures import BrokenExecutor
from functools import partial

import numba as nb
import numpy as np
import pytest
from kernels import run

import shmcompute as sc
from shmcompute.config import START_METHODS
from shmcompute.errors import (
    ClosedError,
    KernelSerializationError,
    KernelTimeoutError,
    WorkerInitError,
    WorkerLostError,
)

BACKENDS = [*START_METHODS, "caller", "threads", "serial", "auto"]
state = {}
local = threading.local()


def pool_of(kind, *, workers=2, **keywords):
    if kind in START_METHODS:
        return sc.Pool(workers, start_method=kind, **keywords)
    if kind == "caller":
        return sc.Pool(workers, caller_runs=True, **keywords)
    return sc.Pool(workers, backend=kind, **keywords)


def remember(**facts):
    state.update(facts)


def recall(key):
    return state.get(key)


def set_here(value):
    local.value = value


def read_local():
    return local.value


def read_here(x):
    x[:] = local.value


def fails(path=None):
    if path is not None:
        with open(path, "a") as file:
            file.write("tried\n")
    raise LookupError("no licence")


@pytest.mark.long
@pytest.mark.parametrize("kind", START_METHODS)
def test_it_is_called_in_each_worker_and_again_after_a_replacement(kind):
    with sc.Pool(2, start_method=kind, initializer=remember_pid, initargs=(7,)) as pool:
        pool.ready()
        assert {pool.submit(recall, "number").result() for _ in range(8)} == {7}
        with pytest.raises(WorkerLostError):
            pool.submit(os._exit, 3).result()
        with sc.SharedArray(np.zeros((2, 2))) as arr:

            def kernel(x):
                x[:] = recall("number"), os.getpid() == recall("pid")

            sc.parallel_apply(kernel, arr, pool=pool)
            assert arr.array.tolist() == [[7, 1], [7, 1]]
    assert "number" not in state


def remember_pid(number):
    remember(number=number, pid=os.getpid())


@pytest.mark.long
@pytest.mark.parametrize("kind", BACKENDS)
def test_python_kernels_and_tasks_find_what_it_has_set_in_their_thread(kind):
    with pool_of(kind, initializer=set_here, initargs=(5,)) as pool:
        with sc.SharedArray(np.zeros(4)) as arr:
            sc.parallel_apply(read_here, arr, pool=pool, chunksize=1, schedule="dynamic")
            assert arr.array.tolist() == [5] * 4
        assert pool.submit(read_local).result() == 5
    vars(local).clear()


@pytest.mark.parametrize("kind", ["threads", "serial", "caller", "auto"])
def test_a_thread_calls_it_once(kind):
    calls = []
    note = lambda: calls.append(threading.get_ident())  # noqa: E731
    with pool_of(kind, initializer=note) as pool, sc.SharedArray(np.zeros(4)) as arr:
        for _ in range(3):
            sc.parallel_apply(lambda x: None, arr, pool=pool)
    assert len(set(calls)) == len(calls)
    assert threading.get_ident() in calls


@pytest.mark.parametrize("kind", ["threads", "caller"])
def test_machine_code_does_not_ask_for_it(kind):
    """Threads that run no Python for the pool need no initializing."""

    @nb.njit
    def kernel(x):
        x += 1

    calls = []
    with (
        pool_of(kind, initializer=lambda: calls.append(1)) as pool,
        sc.SharedArray([1.0, 2.0]) as arr,
    ):
        sc.parallel_apply(kernel, arr, pool=pool)
        assert arr.array.tolist() == [2, 3]
    assert calls == []


@pytest.mark.long
@pytest.mark.parametrize("method", START_METHODS)
def test_what_it_leaves_in_globals_of_main_is_there(method):
    """Bound names and changed containers, for tasks, for kernels, and for what they call."""
    done = run(
        f"""
        import numpy as np, shmcompute as sc
        model, table, numbers, constant = None, {{}}, np.zeros(2), 1

        def load(value):
            global model, later
            model, later = value, value + 1
            table["value"] = value + 2
            numbers[:] = value + 3

        def helper():
            return [model, later, table["value"], *numbers.tolist(), constant]

        class Asks:
            def ask(self):
                return helper()

        def kernel(x):
            x[:] = helper()

        with sc.Pool(1, start_method={method!r}, initializer=load, initargs=(5,)) as pool:
            print(pool.submit(helper).result(), pool.submit(Asks().ask).result())
            constant = 2
            with sc.SharedArray(np.zeros((1, 6))) as arr:
                sc.parallel_apply(kernel, arr, pool=pool)
                print(arr.array.tolist())
        print(model, table, numbers.tolist())
        """,
        fresh="its main module is a program" if method == "spawn" else "",
    )
    assert done.stdout.splitlines() == [
        "[5, 6, 7, 8.0, 8.0, 1] [5, 6, 7, 8.0, 8.0, 1]",
        "[[5.0, 6.0, 7.0, 8.0, 8.0, 2.0]]",
        "None {} [0.0, 0.0]",
    ]


@pytest.mark.long
@pytest.mark.parametrize("kind", START_METHODS)
def test_lambdas_closures_and_partials_will_do(kind):
    number = 3
    for initializer in (
        lambda: remember(number=number),
        partial(remember, number=number),
        _Remember(number),
    ):
        with pool_of(kind, workers=1, initializer=initializer) as pool:
            assert pool.submit(recall, "number").result() == 3


class _Remember:
    def __init__(self, number):
        self.number = number

    def __call__(self):
        remember(number=self.number)


@pytest.mark.long
@pytest.mark.parametrize("storage", ["shm", "array"])
@pytest.mark.parametrize("kind", START_METHODS)
def test_arrays_among_its_arguments_are_shared(kind, storage):
    with sc.SharedArray(np.zeros(3), storage=storage) as arr:

        def fill(whole, view):
            whole[0] = 1
            view[:] = 2
            remember(whole=whole)

        with pool_of(kind, workers=1, initializer=fill, initargs=(arr, arr[1:])) as pool:
            pool.ready()
            assert arr.array.tolist() == [1, 2, 2]
            assert pool.submit(lambda: recall("whole")[2]).result() == 2


@pytest.mark.long
@pytest.mark.parametrize("kind", BACKENDS)
def test_a_failure_is_an_error_that_carries_its_traceback(kind):
    def look(use):
        with pytest.raises(WorkerInitError, match="the initializer fails failed in") as caught:
            use()
        assert isinstance(caught.value, BrokenExecutor)
        assert "LookupError: no licence" in str(caught.value)
        cause = caught.value.__cause__
        assert type(cause) is LookupError
        if kind in START_METHODS:
            assert 'raise LookupError("no licence")' in str(cause.__cause__)

    pool = pool_of(kind, initializer=fails)
    with sc.SharedArray(np.zeros(2)) as arr:
        look(pool.ready)
        look(lambda: sc.parallel_apply(lambda x: None, arr, pool=pool))
        look(lambda: pool.submit(abs, -1).result())
        if kind != "spawn":  # which takes its time
            look(lambda: list(pool.map(abs, range(100))))
            step = sc.plan(lambda x: None, arr, pool=pool)
            look(lambda: step.submit().result())
        pool.close()
        with pytest.raises(ClosedError):
            pool.submit(abs, -1)


@pytest.mark.parametrize("use", ["ready", "call", "tasks"])
def test_workers_are_not_started_again_and_again(use, tmp_path):
    """One attempt for each call, and for all tasks that wait: the pool's own start is the first."""
    log = tmp_path / "log"
    with (
        sc.SharedArray(np.zeros(2)) as arr,
        sc.Pool(2, initializer=fails, initargs=(str(log),)) as pool,
        pytest.raises(WorkerInitError),
    ):
        if use == "ready":
            pool.ready()
        elif use == "call":
            sc.parallel_apply(np.negative, arr, pool=pool)
        else:
            list(pool.map(abs, range(1000)))
    assert 1 <= len(log.read_text().splitlines()) <= 4


def test_what_was_mended_works(tmp_path):
    """The next call tries again."""

    def needs():
        if not (tmp_path / "there").exists():
            raise FileNotFoundError

    with sc.Pool(2, initializer=needs) as pool:
        with pytest.raises(WorkerInitError):
            pool.ready()
        (tmp_path / "there").touch()
        assert pool.ready().submit(abs, -1).result() == 1


def test_a_replacement_that_fails_is_told_and_others_go_on(tmp_path):
    def first_two():
        for name in "ab":
            try:
                (tmp_path / name).touch(exist_ok=False)
                return
            except FileExistsError:
                pass
        raise LookupError("no third licence")

    with sc.Pool(2, initializer=first_two) as pool:
        kept, lost = pool.ready().pids
        running = pool.submit(_wait, str(tmp_path / "go"))
        died = pool.submit(os._exit, 3)
        with pytest.raises(WorkerLostError):
            died.result()
        with pytest.raises(WorkerInitError, match="no third licence"):
            pool.submit(abs, -1).result()
        (tmp_path / "go").touch()
        assert running.result() == "went on"


def _wait(path):
    while not os.path.exists(path):
        time.sleep(0.001)
    return "went on"


@pytest.mark.long
@pytest.mark.parametrize("kind", START_METHODS)
def test_a_worker_that_dies_in_it_is_lost(kind):
    with pool_of(kind, initializer=os._exit, initargs=(5,)) as pool:
        with pytest.raises(WorkerLostError, match="exit code 5.*started"):
            pool.ready()
        tasks = [pool.submit(abs, -1) for _ in range(3)]
        for task in tasks:
            with pytest.raises(WorkerLostError, match="called the initializer _exit"):
                task.result()


@pytest.mark.long
def test_one_that_takes_long_is_waited_for_in_time_and_closed(tmp_path):
    forever = {"initializer": _wait, "initargs": (str(tmp_path / "never"),)}
    with sc.Pool(2, **forever) as pool, pytest.raises(KernelTimeoutError):
        pool.ready(0.2)


def test_sys_exit_in_it_is_a_failure_like_others():
    def leave():
        raise SystemExit(3)

    for kind in ("forkserver", "threads"):
        with pool_of(kind, initializer=leave) as pool, pytest.raises(WorkerInitError):
            pool.ready()


def test_what_can_not_be_sent_is_refused_where_the_pool_is_made():
    with pytest.raises(KernelSerializationError, match="an argument of remember"):
        sc.Pool(2, initializer=remember, initargs=(threading.Lock(),))


def test_bad_arguments_are_named():
    with pytest.raises(TypeError, match="initializer: expected a callable, got 'logging'"):
        sc.Pool(2, initializer="logging")
    with pytest.raises(TypeError, match=r"initargs: expected a tuple .* it is \(5,\)"):
        sc.Pool(2, initializer=abs, initargs=5)
    with pytest.raises(TypeError, match=r"\('a word',\)"):
        sc.Pool(2, backend="threads", initializer=len, initargs="a word")


class Told(Warning):
    """Of a module that workers need not know."""


def _configure(path):
    logging.basicConfig(filename=path, level="INFO", format="%(name)s %(message)s", force=True)
    warnings.simplefilter("ignore", Told)
    warnings.simplefilter("error", ResourceWarning)


def _says():
    logging.getLogger("mine").info("from a worker")
    warnings.warn("not shown", Told, stacklevel=1)
    try:
        warnings.warn("an error", ResourceWarning, stacklevel=1)
    except ResourceWarning:
        return "raised"


@pytest.mark.long
@pytest.mark.parametrize("kind", START_METHODS)
def test_logging_and_warnings_of_the_parent_can_be_had_in_workers(kind, tmp_path):
    """Filters that it adds go before those of the caller, which come with each task."""
    path = tmp_path / "log"
    with pool_of(kind, workers=1, initializer=_configure, initargs=(path,)) as pool:
        assert pool.submit(_says).result() == "raised"
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # the caller's change
            assert pool.submit(_says).result() == "raised"
        assert pool.submit(lambda: warnings.filters[0][2]).result() is ResourceWarning
    assert path.read_text() == "mine from a worker\n" * 2


def test_a_pool_within_a_task_calls_its_own_there():
    def task():
        with sc.Pool(initializer=remember, initargs=(), backend="serial") as inner:
            return inner.submit(abs, -1).result()

    with sc.Pool(1) as pool:
        assert pool.submit(task).result() == 1


def test_an_interrupt_in_it_is_the_callers(tmp_path):
    def interrupted():
        signal.raise_signal(signal.SIGINT)

    with (
        pytest.raises(KeyboardInterrupt),
        sc.Pool(backend="serial", initializer=interrupted) as pool,
    ):
        pool.ready()


def test_libraries_find_the_number_of_workers():
    for kind in ("processes", "threads"):
        pool = sc.Pool(3, backend=kind)
        assert pool._max_workers == 3
        pool.close()
        assert pool._max_workers == 3

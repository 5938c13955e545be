"""Worker processes: what they keep, what they give back, and how they die."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import kernels
import numba
import numpy as np
import psutil
import pytest
import threadpoolctl
from methods import METHODS

import shmcompute as sc
from shmcompute import storage
from shmcompute.backends.processes import worker_process
from shmcompute.backends.processes.protocol import Pipe
from shmcompute.backends.processes.worker.main import LAST
from shmcompute.backends.processes.worker_process import WorkerProcess
from shmcompute.config import WAITS
from shmcompute.errors import (
    ClosedError,
    ForkedPoolError,
    KernelSerializationError,
    KernelTimeoutError,
    RemoteKernelError,
    WorkerLostError,
)
from shmcompute.storage import reaper
from shmcompute.system import cgroup, interrupts


@pytest.fixture(params=METHODS)
def own_pool(request):
    """A pool that a test may harm."""
    with sc.Pool(2, backend="processes", start_method=request.param) as pool:
        yield pool.ready()


def _mapped_by(pid, name):
    return _mappings(pid, name) > 0


def _mappings(pid, name):
    """How often a process maps a segment, by its name."""
    return sum(name in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines())


def _works(pool):
    with sc.SharedArray(np.arange(10.0)) as arr:
        sc.parallel_apply(kernels.affine_python, arr, 3.0, 1.0, pool=pool)
        np.testing.assert_array_equal(arr.array, np.arange(10.0) * 3 + 1)


@pytest.mark.long
def test_a_worker_that_the_oom_killer_took_is_told_of(own_pool, monkeypatch):
    """Once for each time that the cgroup counts; a later SIGKILL is somebody else's."""
    kills = 0
    monkeypatch.setattr(cgroup, "oom_kills", lambda: kills)

    def lost():
        with sc.SharedArray(np.zeros(4)) as arr, pytest.raises(WorkerLostError) as caught:
            sc.parallel_apply(kernels.die, arr, int(signal.SIGKILL), pool=own_pool)
        return "likely out of memory" in str(caught.value)

    monkeypatch.setattr(worker_process, "_oom_kills", 0)
    assert not lost()
    own_pool.ready()
    kills = 1
    assert lost()
    assert not lost()
    _works(own_pool)


def test_who_still_starts_is_not_asked_to_forget(monkeypatch):
    """It has nothing to forget, and its first message would be taken for the answer."""
    asked = []
    with sc.Pool(2) as pool, sc.SharedArray(np.zeros(4)) as arr:
        sc.parallel_apply(np.negative, arr, pool=pool)
        group = pool.running._group
        real = group._ask

        def ask(workers, *given):
            asked.append(list(workers))
            return real(workers, *given)

        monkeypatch.setattr(group.workers[1], "ready", False)
        monkeypatch.setattr(group, "_ask", ask)
        arr.close()
        monkeypatch.undo()
        assert asked == [group.workers[:1]]


def test_workers_attach_once_and_let_go_when_the_array_is_closed(process_pool):
    """On return of close() no worker maps the segment, so its memory is back."""
    arr = sc.SharedArray(np.zeros(1000), storage="shm")
    for _ in range(3):
        sc.parallel_apply(kernels.affine_python, arr, 1.0, 1.0, pool=process_pool)
        assert [_mappings(pid, arr.name) for pid in process_pool.pids] == [1, 1]
    arr.close()
    assert not any(_mapped_by(pid, arr.name) for pid in process_pool.pids)


def test_they_let_go_when_the_last_view_is_dropped(process_pool):
    arr = sc.SharedArray(np.zeros(1000), storage="shm")
    name, view = arr.name, arr.array[::2]
    del arr
    sc.parallel_apply(kernels.affine_python, view, 1.0, 1.0, pool=process_pool)
    assert all(_mapped_by(pid, name) for pid in process_pool.pids)
    del view
    assert not any(_mapped_by(pid, name) for pid in process_pool.pids)


def test_they_let_go_of_what_a_closure_captured(process_pool):
    with sc.SharedArray(np.zeros(4)) as arr:
        table = sc.SharedArray(np.ones(4), storage="shm")

        def kernel(x):
            x += table.array[: x.size]

        sc.parallel_apply(kernel, arr, pool=process_pool)
        np.testing.assert_array_equal(arr.array, np.ones(4))
        table.close()
        assert not any(_mapped_by(pid, table.name) for pid in process_pool.pids)


def test_views_anywhere_in_the_arguments_are_shared(process_pool):
    """Inside a tuple or a dict, too, a view goes as a handle: what a kernel writes is seen."""

    def kernel(x, pair, named):
        pair[0][:] = 1
        named["b"][:] = 2

    with sc.SharedArray(np.zeros(1)) as arr, sc.SharedArray(np.zeros(10)) as other:
        sc.parallel_apply(kernel, arr, (other[:5],), {"b": other[5:]}, pool=process_pool)
        np.testing.assert_array_equal(other.array, [1] * 5 + [2] * 5)


def test_views_of_no_elements_are_no_work_wherever_they_point(any_pool):
    with sc.SharedArray.zeros((0, 4)) as wide, sc.SharedArray.zeros((4, 0)) as tall:
        for view in (wide[:, -1:], tall[::-1], tall[1:3]):
            sc.parallel_apply(kernels.affine_python, view, 1.0, 1.0, pool=any_pool)


def test_a_small_plain_array_travels_as_whole(process_pool):
    with sc.SharedArray(np.ones(4)) as arr:
        sc.parallel_apply(
            kernels.weigh, arr, sc.read(arr), sc.whole(np.arange(3.0)), pool=process_pool
        )
        np.testing.assert_array_equal(arr.array, np.full(4, 3.0))


def test_a_plan_travels_once(pools):
    """Later calls send no array, no kernel and no plan; a big constant neither."""
    pool = pools["forkserver"]
    constant = np.zeros(3_000_000)
    with sc.SharedArray(np.zeros(4)) as arr:
        step = sc.plan(_add_first, arr, sc.whole(constant), pool=pool)
        step()
        before = [psutil.Process(pid).io_counters().read_chars for pid in pool.pids]
        for _ in range(10):
            step()
        after = [psutil.Process(pid).io_counters().read_chars for pid in pool.pids]
        assert all(b - a < 10_000 for a, b in zip(before, after, strict=True))


def _add_first(x, constant):
    x += constant[0] + 1


def test_workers_use_one_thread_each(process_pool):
    """In every library that has threads, whether it was loaded before the cap or after it."""

    def look(x):
        x[0] = numba.get_num_threads()
        x[1] = max(library["num_threads"] for library in threadpoolctl.threadpool_info())
        x[2] = int(os.environ["OMP_NUM_THREADS"])

    with sc.SharedArray(np.zeros((2, 3))) as arr:
        sc.parallel_apply(kernels.affine_prange, arr.array.ravel(), 0.0, 0.0, pool=process_pool)
        sc.parallel_apply(lambda rows: look(rows[0]), arr, pool=process_pool)
        np.testing.assert_array_equal(arr.array, np.ones((2, 3)))


def test_a_worker_has_no_threads_that_take_cores_but_its_own_two(own_pool):
    """OpenBLAS's would spin, on cores that others need, while the worker gets ready."""
    own_pool.ready()
    end = time.monotonic() + 10  # one that compiled may be on its way out still
    for pid in own_pool.pids:
        while (count := _threads_with_a_claim(pid)) > 2 and time.monotonic() < end:
            pass
        assert count == 2  # the other one watches its parent


def _threads_with_a_claim(pid):
    return sum(_niceness(thread.id) < LAST for thread in psutil.Process(pid).threads())


def _niceness(thread):
    try:
        return os.getpriority(os.PRIO_PROCESS, thread)
    except ProcessLookupError:
        return LAST  # it has ended


@pytest.mark.long
def test_a_killed_worker_is_an_error_with_its_signal_and_the_pool_heals(own_pool):
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
        _dies_of(number, own_pool)
        _works(own_pool)


def _dies_of(number, own_pool):
    with sc.SharedArray(np.arange(10.0)) as arr:
        with pytest.raises(WorkerLostError, match=signal.Signals(number).name) as caught:
            sc.parallel_apply(kernels.die, arr[:1], int(number), pool=own_pool)
        assert caught.value.exitcode == -number
        assert caught.value.chunks == [(0, 1)]
        # What an index out of bounds ends as.
        assert ("debug=True" in str(caught.value)) == (number != signal.SIGKILL)


@pytest.mark.long
def test_an_exit_in_a_kernel_is_never_success(own_pool):
    for code in (0, 3):
        with sc.SharedArray(np.arange(10.0)) as arr, pytest.raises(WorkerLostError) as caught:
            sc.parallel_apply(kernels.leave, arr, code, pool=own_pool)
        assert caught.value.exitcode == code
        assert caught.value.chunks == [(0, 5), (5, 10)]
        _works(own_pool)


def test_sys_exit_in_a_kernel_arrives_as_such(any_pool):
    def kernel(x):
        raise SystemExit(4)

    with sc.SharedArray(np.arange(2.0)) as arr, pytest.raises(SystemExit):
        sc.parallel_apply(kernel, arr, pool=any_pool)


@pytest.mark.long
def test_an_idle_worker_that_dies_is_replaced_without_a_word(own_pool):
    first = own_pool.pids
    os.kill(first[0], signal.SIGKILL)
    psutil.wait_procs([psutil.Process(first[0])] if psutil.pid_exists(first[0]) else [], timeout=10)
    _works(own_pool)
    assert first[0] not in own_pool.pids
    assert len(own_pool.pids) == 2


@pytest.mark.long
def test_a_call_that_overruns_is_ended(own_pool):
    first = set(own_pool.pids)
    with sc.SharedArray(np.arange(10.0)) as arr, pytest.raises(KernelTimeoutError) as caught:
        sc.parallel_apply(kernels.stop_forever, arr, timeout=0.2, pool=own_pool)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.chunks == [(0, 5), (5, 10)]
    _works(own_pool)
    assert not first & set(own_pool.pids)


def _stopped(pool):
    """One of its workers, halted and so of no use."""
    os.kill(pool.pids[0], signal.SIGSTOP)
    while psutil.Process(pool.pids[0]).status() != psutil.STATUS_STOPPED:
        time.sleep(0.001)
    return pool.pids[0]


@pytest.mark.long
def test_a_timeout_holds_while_a_stopped_worker_takes_a_plan(own_pool):
    stopped = _stopped(own_pool)
    with sc.SharedArray(np.zeros(10)) as arr:
        with pytest.raises(KernelTimeoutError, match="nothing has run"):
            sc.parallel_apply(kernels.affine_python, arr, 1.0, 1.0, timeout=0.2, pool=own_pool)
        assert not arr.array.any()
    _works(own_pool)
    assert stopped not in own_pool.pids


@pytest.mark.long
def test_a_worker_that_is_stopped_while_it_starts_is_replaced():
    with (
        sc.Pool(2, backend="processes", start_method="spawn") as pool,
        sc.SharedArray(np.zeros(10)) as arr,
    ):
        stopped = _stopped(pool)
        with pytest.raises(KernelTimeoutError, match="nothing has run"):
            sc.parallel_apply(kernels.affine_python, arr, 1.0, 1.0, timeout=0.2, pool=pool)
        _works(pool)
        assert stopped not in pool.pids


@pytest.mark.long
def test_a_stopped_worker_does_not_keep_close_waiting(own_pool):
    with sc.SharedArray(np.zeros(10)) as arr:
        sc.parallel_apply(kernels.affine_python, arr, 1.0, 1.0, pool=own_pool)
        stopped = _stopped(own_pool)
    _works(own_pool)
    assert stopped not in own_pool.pids


@pytest.mark.long
def test_many_stopped_workers_do_not_keep_close_waiting_each(monkeypatch):
    """All have the same second to end by themselves."""
    real, killed = worker_process.kill_all, []
    monkeypatch.setattr(
        worker_process, "kill_all", lambda workers: (killed.append(len(workers)), real(workers))
    )
    with sc.Pool(4, start_method="fork") as pool:
        for pid in pool.ready().pids:
            os.kill(pid, signal.SIGSTOP)
    assert killed == [4]


def test_the_other_chunks_stop_when_one_fails(process_pool):
    """Chunks of a static schedule that come after a failure are not run."""

    def kernel(x, start):
        if start == 1:
            raise ValueError("first of the second worker")
        time.sleep(0.01)
        x += 1

    with sc.SharedArray(np.zeros(200)) as arr:
        with pytest.raises(ValueError, match="second worker"):
            sc.parallel_apply(kernel, arr, sc.offset, chunksize=1, pool=process_pool)
        assert arr.array.sum() < 100


def test_an_error_shows_the_workers_traceback(process_pool):
    with sc.SharedArray(np.zeros(2)) as arr, pytest.raises(ZeroDivisionError) as caught:
        sc.parallel_apply(kernels.divide, arr, pool=process_pool)
    assert "in divide" in str(caught.value.__cause__)
    assert (
        caught.value.__notes__[0].startswith("in chunk [0, 1)")
        or "[1, 2)" in caught.value.__notes__[0]
    )


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__("only one")


def test_an_exception_that_does_not_travel_comes_as_text(process_pool):
    def kernel(x):
        raise Unpicklable(1, 2)

    with sc.SharedArray(np.zeros(1)) as arr:
        with pytest.raises(RemoteKernelError, match="Unpicklable: only one"):
            sc.parallel_apply(kernel, arr, pool=process_pool)
        _works(process_pool)


def test_what_does_not_pickle_is_an_error_of_the_caller(process_pool):
    with sc.SharedArray(np.zeros(1)) as arr:
        with pytest.raises(KernelSerializationError, match="argument"):
            sc.parallel_apply(lambda x, y: None, arr, threading.Lock(), pool=process_pool)
        lock = threading.Lock()
        with pytest.raises(KernelSerializationError, match="kernel"):
            sc.parallel_apply(lambda x: lock.acquire() and None, arr, pool=process_pool)
    _works(process_pool)


class Hostile:
    def __reduce__(self):
        return _explode, ()


def _explode():
    if multiprocessing.parent_process() is not None:
        raise OSError("not here")


def test_what_does_not_unpickle_in_the_worker_is_an_error_and_nothing_runs(process_pool):
    refused = pytest.raises(KernelSerializationError, match="not here")
    with sc.SharedArray(np.zeros(2)) as arr, refused:
        sc.parallel_apply(lambda x, y: None, arr, Hostile(), pool=process_pool)
    _works(process_pool)


def test_a_pool_in_a_forked_child_says_so(process_pool):
    with sc.SharedArray(np.zeros(2)) as arr:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                for use in (
                    lambda: sc.parallel_apply(np.sqrt, arr, pool=process_pool),
                    lambda: process_pool.pids,
                    lambda: process_pool.ready(),
                ):
                    try:
                        use()
                    except ForkedPoolError:
                        pass
                    else:
                        os._exit(2)
                process_pool.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
    _works(process_pool)


@pytest.mark.long
def test_a_forked_child_may_make_a_pool_of_its_own():
    done = kernels.run(
        """
        import os
        import numpy as np, shmcompute as sc
        arr = sc.SharedArray(np.ones(4))
        sc.parallel_apply(np.negative, arr)
        pid = os.fork()
        if pid == 0:
            sc.parallel_apply(np.negative, arr)
            raise SystemExit
        print(os.waitpid(pid, 0)[1], arr.array)
        """
    )
    assert done.stdout == "0 [1. 1. 1. 1.]\n"


def test_a_closed_pool_says_so():
    pool = sc.Pool(1, backend="processes")
    pids = pool.pids
    pool.close()
    pool.close()
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with sc.SharedArray(np.zeros(2)) as arr:
        for use in (
            lambda: sc.parallel_apply(np.sqrt, arr, pool=pool),
            lambda: pool.pids,
            lambda: pool.ready(),
            lambda: pool.__enter__(),
        ):
            with pytest.raises(ClosedError):
                use()


def test_a_dropped_pool_ends_its_workers():
    pool = sc.Pool(1, backend="processes").ready()
    (pid,) = pool.pids
    process = psutil.Process(pid)
    del pool
    psutil.wait_procs([process], timeout=10)
    assert not psutil.pid_exists(pid) or process.status() == "zombie"


@pytest.mark.long
@pytest.mark.parametrize("waiting", WAITS)
@pytest.mark.parametrize("method", METHODS)
def test_workers_end_when_their_parent_is_killed(method, waiting, monkeypatch):
    """Even while they run a kernel, be it one that never lets go of the GIL."""
    monkeypatch.setenv("SHMCOMPUTE_WAIT", waiting)
    program = kernels.subprocess.Popen(
        [kernels.sys.executable, "-c", _PARENT, method],
        stdout=kernels.subprocess.PIPE,
        text=True,
    )
    pids = [int(pid) for pid in program.stdout.readline().split()]
    workers = [psutil.Process(pid) for pid in pids]
    program.kill()
    program.stdout.close()  # workers hold the other end
    program.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not [worker for worker in alive if worker.status() != "zombie"]
    reaper.reap()


_PARENT = """
import ctypes, sys, time
import numpy as np, shmcompute as sc
def kernel(x):
    print(*pids, flush=True) if x[0] == 0 else None
    ctypes.PyDLL(None).sleep(60) if x[0] == 0 else time.sleep(60)
pool = sc.Pool(2, start_method=sys.argv[1]).ready()
pids = pool.pids
sc.parallel_apply(kernel, sc.SharedArray(np.arange(2.0)), pool=pool)
"""


def test_who_was_interrupted_in_the_middle_of_an_answer_waits_for_no_end(monkeypatch):
    """What is left of the answer makes no sense, and the worker would not end by itself."""
    receive, waits = Pipe.receive, []
    with sc.Pool(1, start_method="fork") as pool, sc.SharedArray(np.zeros(4)) as arr:
        sc.parallel_apply(kernels.affine_python, arr, 1.0, 1.0, pool=pool)

        def torn(pipe, deadline):
            os.read(pipe.fd, 4)
            monkeypatch.setattr(Pipe, "receive", receive)
            raise KeyboardInterrupt

        monkeypatch.setattr(Pipe, "receive", torn)
        monkeypatch.setattr(WorkerProcess, "ended", lambda worker: waits.append(worker))
        with pytest.raises(KeyboardInterrupt):  # of a plan that the worker is to load
            sc.parallel_apply(np.negative, arr, pool=pool)
        assert not waits
        _works(pool)


@pytest.mark.long
def test_a_program_that_ends_waits_for_workers_that_start():
    """Else they may come upon half of what they are to read, and say so."""
    done = kernels.run(
        """
        import threading
        from multiprocessing import util
        import shmcompute as sc
        from shmcompute.backends.processes import start
        sc.Pool(1, start_method="forkserver").ready().close()  # the server itself may take long
        begun, ends, real = threading.Event(), threading.Event(), start.start
        started = []
        def held_up(process, context, give_up):
            begun.set()
            ends.wait()
            real(process, context, give_up)
            started.append(process)
        start.start = held_up
        util.Finalize(None, ends.set, exitpriority=1)
        util.Finalize(None, lambda: print(len(started)), exitpriority=-1)
        pool = sc.Pool(2, start_method="forkserver")
        begun.wait()
        del pool
        """,
        fresh="it counts on the order in which a new interpreter registers exit handlers",
    )
    assert done.stdout == "2\n"


@pytest.fixture
def ctrl_c():
    """Ctrl-C as in a terminal: a job in a shell's background starts with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _interrupted(call, ready, to=None):
    """Call it; Ctrl-C comes when `ready`, to that thread, or to one that does not call."""

    def interrupt():
        while not ready():
            time.sleep(0.001)
        signal.pthread_kill(to or threading.get_ident(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        call()
    thread.join()


@pytest.mark.long
def test_ctrl_c_stops_the_call_and_leaves_the_pool_usable(own_pool, ctrl_c):
    with sc.SharedArray(np.zeros(2)) as arr:

        def kernel(x):
            x += 1
            signal.pause()

        _interrupted(
            lambda: sc.parallel_apply(kernel, arr, pool=own_pool),
            lambda: arr.array.sum() == 2,  # both workers are inside
            threading.main_thread().ident,
        )
    _works(own_pool)


@pytest.mark.long
@pytest.mark.parametrize("waiting", WAITS)
def test_ctrl_c_that_ends_no_system_call_stops_the_call_that_waits(waiting, monkeypatch, ctrl_c):
    """As one that comes just before it, or, here, to another thread."""
    monkeypatch.setenv("SHMCOMPUTE_WAIT", waiting)
    with sc.Pool(2) as pool, sc.SharedArray(np.zeros(2)) as arr:

        def kernel(x):
            x += 1
            signal.pause()

        _interrupted(
            lambda: sc.parallel_apply(kernel, arr, pool=pool), lambda: arr.array.sum() == 2
        )
        _works(pool)


@pytest.mark.long
def test_ctrl_c_that_ends_no_system_call_stops_a_call_that_waits_for_another(ctrl_c):
    with sc.Pool(2) as pool, sc.SharedArray(np.zeros(2)) as arr:

        def kernel(x):
            x += 1
            while x[0]:
                time.sleep(0.001)

        other = threading.Thread(
            target=sc.parallel_apply, args=(kernel, arr), kwargs={"pool": pool}
        )
        other.start()

        _interrupted(
            lambda: sc.parallel_apply(np.sqrt, arr, pool=pool),
            lambda: arr.array.sum() == 2 and pool.running._fair_lock.wanted,
        )
        arr[:] = 0
        other.join()
        _works(pool)


@pytest.mark.long
def test_ctrl_c_while_the_fork_server_starts_is_not_its_end():
    """It prints nothing, and goes on."""
    program = """
        import multiprocessing.forkserver, os, signal, time
        import shmcompute as sc
        pool = sc.Pool(1, start_method="forkserver")
        server = multiprocessing.forkserver._forkserver
        while server._forkserver_pid is None:
            time.sleep(0.001)
        first = server._forkserver_pid
        for _ in range(10):
            os.kill(first, signal.SIGINT)
            time.sleep(0.02)  # it imports meanwhile
        pool.ready()
        print(server._forkserver_pid == first)
        """
    assert kernels.run(program).stdout == "True\n"


@pytest.mark.long
def test_threads_may_share_a_pool(process_pool):
    results = []

    def work(number):
        with sc.SharedArray(np.zeros(100)) as arr:
            for _ in range(5):
                sc.parallel_apply(kernels.affine_python, arr, 1.0, float(number), pool=process_pool)
            results.append(bool((arr.array == number * 5).all()))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 8


def test_a_plan_may_be_called_within_a_kernel(pools):
    """On the pool that runs the kernel, too."""
    x, y = np.zeros(4), np.zeros(4)
    inner = sc.plan(kernels.affine_python, y, 1.0, 1.0, pool=pools["threads"])
    sc.parallel_apply(lambda part: inner(), x, chunksize=4, pool=pools["threads"])
    np.testing.assert_array_equal(y, np.ones(4))


def test_a_call_within_a_kernel_runs_where_it_is(any_pool):
    def kernel(x):
        import shmcompute

        shmcompute.parallel_apply(_inner, x)

    def _inner(x):
        x += 1

    with sc.SharedArray(np.zeros(6)) as arr:
        sc.parallel_apply(kernel, arr, pool=any_pool)
        np.testing.assert_array_equal(arr.array, np.ones(6))


@pytest.mark.parametrize("backend", ["processes", "threads"])
@pytest.mark.parametrize("schedule", ["static", "dynamic"])
def test_the_caller_may_take_a_share(backend, schedule):
    def kernel(x, pid):
        x[:] = os.getpid() == pid

    with (
        sc.Pool(2, backend=backend, caller_runs=True) as pool,
        sc.SharedArray(np.zeros(40)) as arr,
    ):
        assert len(pool.pids) == (1 if backend == "processes" else 0)
        sc.parallel_apply(kernel, arr, os.getpid(), pool=pool, chunksize=10, schedule=schedule)
        assert arr.array.sum() >= 10
        with pytest.raises(ZeroDivisionError):
            sc.parallel_apply(kernels.divide, arr, pool=pool)
        sc.parallel_apply(kernels.affine, arr, 0.0, 1.0, pool=pool)
        np.testing.assert_array_equal(arr.array, np.ones(40))


@pytest.mark.long
def test_nothing_of_an_array_moves_between_processes(pools):
    """Resident memory outside the array grows by less than 16 MiB a worker on 512 MiB."""
    size = 512 << 20
    room = psutil.virtual_memory().available
    if room < 4 * size or psutil.disk_usage("/dev/shm").free < 2 * size:
        pytest.skip("needs two gigabytes of memory")
    pool = pools["forkserver"]
    with sc.SharedArray(np.zeros(8)) as arr:
        sc.parallel_apply(kernels.affine, arr, 3.0, 1.0, pool=pool)  # compiled
    before = [_outside(pid) for pid in pool.pids]
    with sc.SharedArray.zeros(size // 8, storage="shm") as arr:
        sc.parallel_apply(kernels.affine, arr, 3.0, 1.0, pool=pool)
        grown = [_outside(pid) - old for pid, old in zip(pool.pids, before, strict=True)]
        assert arr.array[0] == arr.array[-1] == 1
    assert all(growth < 16 << 20 for growth in grown), grown


def _outside(pid):
    """Resident bytes that are not shared memory."""
    info = psutil.Process(pid).memory_info()
    shared = [m for m in psutil.Process(pid).memory_maps() if m.path.startswith("/dev/shm/")]
    return info.rss - sum(m.rss for m in shared)


@pytest.mark.long
def test_no_segment_outlives_its_use(process_pool):
    before = {segment.address for segment in storage.live()}

    def descriptors(times):
        for _ in range(times):
            with sc.SharedArray(np.zeros(100)) as arr:
                sc.parallel_apply(np.cos, arr, pool=process_pool)
        return [psutil.Process(pid).num_fds() for pid in process_pool.pids]

    assert descriptors(1) == descriptors(30)
    assert {segment.address for segment in storage.live()} == before


@pytest.mark.parametrize("method", METHODS)
def test_arrays_made_before_and_after_the_pool_work(method, any_storage):
    before = sc.SharedArray(np.arange(50.0), **{key: any_storage[key] for key in any_storage})
    with sc.Pool(2, backend="processes", start_method=method) as pool:
        after = sc.SharedArray(np.arange(50.0), **{key: any_storage[key] for key in any_storage})
        for arr in (before, after):
            with arr:
                sc.parallel_apply(kernels.affine_python, arr, 3.0, 1.0, pool=pool)
                np.testing.assert_array_equal(arr.array, np.arange(50.0) * 3 + 1)


def test_a_grandchild_does_not_hide_a_death(own_pool):
    """It holds the worker's pipe open; the worker's end is seen while it still runs."""

    def kernel(x):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        x[:] = pid
        os.kill(os.getpid(), signal.SIGKILL)

    with sc.SharedArray(np.zeros(1)) as arr:
        with pytest.raises(WorkerLostError, match="SIGKILL"):
            sc.parallel_apply(kernel, arr, pool=own_pool)
        os.kill(int(arr[0]), signal.SIGKILL)  # it is still there
    _works(own_pool)


def test_a_timeout_counts_from_the_call(pools):
    """Waiting for a pool that is busy counts."""
    pool = pools["forkserver"]
    with sc.SharedArray(np.zeros(1)) as arr, sc.SharedArray(np.zeros(1)) as other:

        def kernel(x):
            x[0] = 1
            while x[0] == 1:
                time.sleep(0.001)

        keywords = {"pool": pool}
        thread = threading.Thread(target=sc.parallel_apply, args=(kernel, arr), kwargs=keywords)
        thread.start()
        while not arr[0]:
            time.sleep(0.001)
        with pytest.raises(KernelTimeoutError, match="busy"):
            sc.parallel_apply(np.negative, other, timeout=0.05, pool=pool)
        arr[0] = 2
        thread.join()


def test_an_error_keeps_no_array(any_pool):
    """Without the garbage collector, too: no cycle holds the views of a call that failed."""
    expected = contextlib.suppress(ZeroDivisionError)
    with sc.SharedArray(np.zeros(4)) as arr, expected:  # what a first failure makes and keeps
        sc.parallel_apply(kernels.divide, arr, pool=any_pool)
    gc.collect()
    gc.disable()
    try:
        arr = sc.SharedArray(np.zeros(4))
        address = arr.segment.address
        with contextlib.suppress(ZeroDivisionError):
            sc.parallel_apply(kernels.divide, arr, pool=any_pool)
        arr.close()
        del arr
        assert address not in {segment.address for segment in storage.live()}
    finally:
        gc.enable()


def test_an_exception_that_cannot_even_be_told_is_told(process_pool):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no")

        __reduce__ = __repr__ = __str__

    def kernel(x):
        raise Mute

    with sc.SharedArray(np.zeros(1)) as arr, pytest.raises(RemoteKernelError, match="Mute"):
        sc.parallel_apply(kernel, arr, pool=process_pool)


@pytest.mark.long
def test_an_interrupt_at_any_point_leaves_no_one_writing(own_pool, monkeypatch):
    """Raised at the n-th look for an answer: the array stands still, and the pool works."""
    real, left = interrupts.wait, [0]

    def interrupted(objects, timeout=None):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return real(objects, timeout)

    def kernel(x):
        for _ in range(20):
            x += 1
            time.sleep(0.005)

    for point in range(6):
        with sc.SharedArray(np.zeros(4)) as arr:
            left[0] = point
            with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
                patch.setattr(interrupts, "wait", interrupted)
                sc.parallel_apply(kernel, arr, pool=own_pool)
            found = arr.array.copy()
            time.sleep(0.05)  # time in which who still wrote would be seen
            np.testing.assert_array_equal(arr.array, found)
        _works(own_pool)


@pytest.mark.long
def test_forked_workers_compile_where_numba_had_started_its_threads():
    """Their number is fixed by then, whatever a worker is granted."""
    kernels.run("""
        import warnings
        import numba as nb, numpy as np, shmcompute as sc

        @nb.njit(parallel=True)
        def everywhere(x):
            for i in nb.prange(x.size):
                x[i] += 1

        def kernel(x):
            @nb.njit
            def inner(x):
                x += 1

            inner(x)
            assert nb.get_num_threads() == 1

        everywhere(np.zeros(100))
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12's, of fork beside threads
        with sc.Pool(2, start_method="fork") as pool, sc.SharedArray(np.zeros(4)) as arr:
            sc.parallel_apply(kernel, arr, pool=pool)
            assert (arr.array == 1).all()
    """)

"""`plan(...).submit()`: calls that nobody waits for, in order, with a future."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import signal
import threading
import time
import weakref
from concurrent import futures

import numpy as np
import pytest
from kernels import run

import shmcompute as sc
from shmcompute.errors import (
    ClosedError,
    ForkedPoolError,
    KernelTimeoutError,
    WorkerLostError,
)


def _append(x, number):
    """Order shows: it does not commute."""
    x *= 10
    x += number


def _wait_for(x, gate):
    """A kernel that goes on when a file appears."""
    while not os.path.exists(gate):
        time.sleep(0.001)
    x += 1


@pytest.fixture(params=["processes", "caller", "threads"])
def own_pool(request):
    """A pool that runs submitted calls in a thread of its own."""
    kind = "threads" if request.param == "threads" else "processes"
    with sc.Pool(2, backend=kind, caller_runs=request.param == "caller") as pool:
        yield pool


@pytest.fixture
def gate(tmp_path):
    """A file for which `_wait_for` waits, and what makes it."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def test_calls_run_in_the_order_in_which_they_were_submitted(any_pool):
    with sc.SharedArray(np.zeros(4)) as arr:
        step = sc.plan(_append, arr, 1, pool=any_pool)
        submitted = [step.submit(number) for number in range(1, 10)]
        assert all(type(future) is futures.Future for future in submitted)
        assert [future.result(60) for future in submitted] == [None] * 9
        assert arr.array.tolist() == [123456789.0] * 4


def test_a_plain_call_waits_for_those_that_were_submitted_before(any_pool):
    with sc.SharedArray(np.zeros(4)) as arr:
        step = sc.plan(_append, arr, 1, pool=any_pool)
        for number in (1, 2):
            step.submit(number)
        sc.parallel_apply(_append, arr, 3, pool=any_pool)
        assert arr.array.tolist() == [123.0] * 4
        step.submit(4)
        step(5)
        assert arr.array.tolist() == [12345.0] * 4
        step.submit(6)
        sc.parallel_iterate(_append, arr, 7, times=1, pool=any_pool)
        assert arr.array.tolist() == [1234567.0] * 4
        step.submit(8)
        assert sc.parallel_reduce(np.max, arr, combine=np.maximum, pool=any_pool) == 12345678


def test_it_returns_before_the_call_has_begun(own_pool, gate):
    with sc.SharedArray(np.zeros(2)) as arr:
        future = sc.plan(_wait_for, arr, str(gate), pool=own_pool).submit()
        assert not future.done()
        gate.touch()
        future.result(60)
        assert arr.array.tolist() == [1, 1]


def test_what_waits_can_be_cancelled_and_what_runs_can_not(own_pool, gate):
    with sc.SharedArray(np.zeros(2)) as arr:
        first = sc.plan(_wait_for, arr, str(gate), pool=own_pool).submit()
        second, third = (sc.plan(np.negative, arr, pool=own_pool).submit() for _ in range(2))
        while not first.running():
            pass
        assert second.cancel()
        assert not first.cancel()
        gate.touch()
        assert first.result(60) is third.result(60) is None
        assert second.cancelled()
        assert arr.array.tolist() == [-1, -1]


def test_errors_arrive_in_the_future_and_the_next_call_runs(any_pool):
    def fails(x):
        raise LookupError("no such thing")

    with sc.SharedArray(np.ones(2)) as arr:
        failed = sc.plan(fails, arr, pool=any_pool).submit()
        good = sc.plan(np.negative, arr, pool=any_pool).submit()
        with pytest.raises(LookupError, match="no such thing") as caught:
            failed.result(60)
        assert "chunk" in "".join(caught.value.__notes__)
        good.result(60)
        assert arr.array.tolist() == [-1, -1]


def test_a_death_arrives_in_the_future():
    with sc.Pool(2) as pool, sc.SharedArray(np.ones(2)) as arr:
        lost = sc.plan(lambda x: os._exit(3), arr, pool=pool).submit()
        good = sc.plan(np.negative, arr, pool=pool).submit()
        with pytest.raises(WorkerLostError, match="exit code 3"):
            lost.result(60)
        assert good.result(60) is None


def test_a_closed_array_is_the_futures_error(any_pool):
    arr = sc.SharedArray(np.ones(2))
    step = sc.plan(np.negative, arr, pool=any_pool)
    arr.close()
    with pytest.raises(ClosedError):
        step.submit().result(60)


def test_what_it_makes_arrives_in_the_future(any_pool):
    def total(x, out):
        out[0] = x.sum()

    with sc.SharedArray(np.ones(8)) as arr:
        step = sc.plan(total, sc.read(arr), sc.per_chunk(1, float), pool=any_pool, chunksize=4)
        with step.submit().result(60) as made:
            assert made.array.ravel().tolist() == [4, 4]


def test_its_progress_is_told(pools):
    told = []
    with sc.SharedArray(np.ones(8)) as arr:
        tell = lambda *done: told.append(done)  # noqa: E731
        step = sc.plan(np.negative, arr, pool=pools["threads"], chunksize=2, progress=tell)
        step.submit().result(60)
    assert told[-1] == (4, 4)


def test_numbers_that_do_not_fit_are_refused_at_once(any_pool):
    with sc.SharedArray(np.ones(2)) as arr:
        step = sc.plan(_append, arr, 1, pool=any_pool)
        with pytest.raises(TypeError, match="expected"):
            step.submit("one")


@pytest.mark.long
def test_a_timeout_counts_from_its_turn_and_a_plain_ones_from_its_call(gate):
    with sc.Pool(2) as pool, sc.SharedArray(np.zeros(2)) as arr:
        sc.plan(_wait_for, arr, str(gate), pool=pool.ready()).submit()
        late = sc.plan(np.negative, arr, pool=pool, timeout=60).submit()
        with pytest.raises(KernelTimeoutError, match="busy with submitted calls for 0.05 s"):
            sc.parallel_apply(np.negative, arr, pool=pool, timeout=0.05)
        gate.touch()
        late.result(60)
        assert arr.array.tolist() == [-1, -1]


def test_many_threads_submit_and_call(own_pool):
    rounds = 20
    with sc.SharedArray(np.zeros(4)) as arr, sc.SharedArray(np.zeros((4, 4))) as own:

        def work(number):
            step = sc.plan(np.add, arr, 1.0, pool=own_pool)
            futures = [step.submit() for _ in range(rounds)]
            sc.parallel_apply(np.add, own[number], 1.0, pool=own_pool)
            assert all(future.done() for future in futures)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert arr.array.tolist() == [4 * rounds] * 4
        assert own.array.all()


def test_callbacks_may_call_and_submit(own_pool):
    told = futures.Future()
    with sc.SharedArray(np.ones(2)) as arr:
        step = sc.plan(np.negative, arr, pool=own_pool)

        def callback(future):
            step()
            step.submit().add_done_callback(lambda last: told.set_result(last.exception()))

        step.submit().add_done_callback(callback)
        assert told.result(60) is None
        assert arr.array.tolist() == [-1, -1]


def test_a_callback_of_a_task_may_call_while_calls_wait(gate):
    """It runs in the thread that has the workers do tasks, which the submitted call waits for."""
    with sc.Pool(2) as pool, sc.SharedArray(np.zeros(2)) as arr:
        step = sc.plan(np.add, arr, 1.0, pool=pool.ready())
        done = futures.Future()

        def callback(task):
            step.submit()
            step()
            done.set_result(None)

        pool.submit(abs, -1).add_done_callback(callback)
        done.result(60)
        step()
        assert arr.array.tolist() == [3, 3]


@pytest.mark.long
@pytest.mark.parametrize("backend", ["processes", "threads"])
def test_close_waits_for_what_was_submitted(backend, gate):
    with sc.SharedArray(np.zeros(2)) as arr:
        pool = sc.Pool(2, backend=backend)
        first = sc.plan(_wait_for, arr, str(gate), pool=pool).submit()
        second = sc.plan(_append, arr, 2, pool=pool).submit()
        threading.Timer(0.05, gate.touch).start()
        pool.close()
        assert first.done() and second.done()
        assert arr.array.tolist() == [12, 12]
        with pytest.raises(ClosedError):
            sc.plan(_append, arr, 2, pool=pool)


@pytest.mark.parametrize("backend", ["processes", "threads"])
@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_cancels_if_asked(backend, wait, gate):
    with sc.SharedArray(np.zeros(2)) as arr:
        pool = sc.Pool(2, backend=backend)
        step = sc.plan(np.negative, arr, pool=pool)
        first = sc.plan(_wait_for, arr, str(gate), pool=pool).submit()
        second = step.submit()
        while not first.running():
            pass
        threading.Timer(0.05, gate.touch).start()
        pool.shutdown(wait=wait, cancel_futures=True)
        assert second.cancelled()
        with pytest.raises(ClosedError):
            step.submit()
        assert first.result(60) is None
        assert arr.array.tolist() == [1, 1]


@pytest.mark.long
@pytest.mark.parametrize("backend", ["processes", "threads"])
def test_shutdown_without_waiting_loses_nothing(backend, gate):
    with sc.SharedArray(np.zeros(2)) as arr:
        pool = sc.Pool(2, backend=backend)
        first = sc.plan(_wait_for, arr, str(gate), pool=pool).submit()
        last = sc.plan(_append, arr, 2, pool=pool).submit()
        pool.shutdown(wait=False)
        assert not first.done()
        with pytest.raises(ClosedError):
            sc.parallel_apply(np.negative, arr, pool=pool)
        gate.touch()
        last.result(60)
        assert arr.array.tolist() == [12, 12]


def test_ended_workers_lose_what_runs_and_cancel_what_waits(gate):
    with sc.SharedArray(np.zeros(2)) as arr:
        pool = sc.Pool(2)
        first = sc.plan(_wait_for, arr, str(gate), pool=pool.ready()).submit()
        second = sc.plan(np.negative, arr, pool=pool).submit()
        while not first.running():
            pass
        pool.kill_workers()
        with pytest.raises((WorkerLostError, ClosedError)):
            first.result(60)
        assert second.cancelled()
        pool.close()


def test_a_callback_may_close_the_pool(own_pool):
    with sc.SharedArray(np.zeros(2)) as arr:
        step = sc.plan(np.add, arr, 1.0, pool=own_pool)
        closed = futures.Future()
        step.submit().add_done_callback(lambda _: closed.set_result(own_pool.close()))
        closed.result(60)
        with pytest.raises(ClosedError):
            step()


def test_within_a_kernel_or_task_it_is_run_at_once(pools):
    with sc.SharedArray(np.zeros(2)) as arr, sc.SharedArray(np.zeros(2)) as other:

        def task():
            future = sc.plan(np.add, other, 1.0).submit()
            return future.done()

        def kernel(x):
            x[:] = task()

        sc.parallel_apply(kernel, arr, pool=pools["threads"])
        assert arr.array.tolist() == [1, 1]
        assert pools["threads"].submit(task).result(60)
        assert pools["forkserver"].submit(task).result(60)
        assert other.array.tolist() == [4, 4]


def test_a_serial_pool_runs_it_in_the_calling_thread(pools):
    where = []
    with sc.SharedArray(np.zeros(2)) as arr:
        kernel = lambda x: where.append(threading.current_thread())  # noqa: E731
        assert sc.plan(kernel, arr, pool=pools["serial"]).submit().done()
    assert where == [threading.current_thread()]


def test_context_variables_are_those_of_who_submits(pools):
    variable = contextvars.ContextVar("variable", default="none")
    seen = []
    with sc.SharedArray(np.zeros(1)) as arr:
        step = sc.plan(lambda x: seen.append(variable.get()), arr, pool=pools["threads"])
        variable.set("mine")
        step.submit().result(60)
        with np.errstate(divide="raise"):
            future = sc.plan(
                lambda x: np.divide(1, x, out=x), arr, pool=pools["forkserver"]
            ).submit()
        with pytest.raises(FloatingPointError):
            future.result(60)
    assert seen == ["mine"]


def test_asyncio_awaits_it(any_pool):
    async def main():
        steps = [asyncio.wrap_future(step.submit(number)) for number in (1, 2, 3)]
        await asyncio.gather(*steps)
        return arr.array.tolist()

    with sc.SharedArray(np.zeros(2)) as arr:
        step = sc.plan(_append, arr, 1, pool=any_pool)
        assert asyncio.run(main()) == [123, 123]


def test_nothing_of_a_call_stays(pools):
    """Neither future nor error is kept when nobody asks for them, without a garbage collection."""

    def fails(x):
        raise LookupError

    gc.disable()
    try:
        with sc.SharedArray(np.zeros(2)) as arr:
            future = sc.plan(fails, arr, pool=pools["threads"]).submit()
            futures.wait([future])
            gone = weakref.ref(future)
            del future
            for thread in threading.enumerate():
                if thread.name == "shmcompute-calls":
                    thread.join()
            assert gone() is None
    finally:
        gc.enable()


def test_a_forked_child_can_not_submit(pools):
    with sc.SharedArray(np.zeros(2)) as arr:
        step = sc.plan(np.negative, arr, pool=pools["threads"])
        pid = os.fork()
        if pid == 0:
            try:
                step.submit()
            except ForkedPoolError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.long
def test_the_end_of_a_program_loses_nothing():
    """It waits for what was submitted, and refuses more."""
    done = run(
        """
        import numpy as np, shmcompute as sc
        arr = sc.SharedArray(np.zeros(2))
        def step(x):
            x += 1
        def told(future):
            print(future.exception(), arr.array.tolist())
        for backend in ("threads", "processes"):
            plan = sc.plan(step, arr, backend=backend)
            for _ in range(3):
                last = plan.submit()
            last.add_done_callback(told)
            last.result() if backend == "threads" else None
        """
    )
    assert done.stdout == "None [3.0, 3.0]\nNone [6.0, 6.0]\n"


def test_after_the_end_began_it_is_refused():
    done = run(
        """
        import atexit, numpy as np, shmcompute as sc
        arr = sc.SharedArray(np.zeros(2))
        plan = sc.plan(np.negative, arr, backend="threads")
        @atexit.register
        def late():
            try:
                plan.submit()
            except RuntimeError as error:
                print(error)
        """
    )
    assert done.stdout == "cannot schedule new futures after interpreter shutdown\n"


@pytest.mark.long
def test_ctrl_c_while_a_plain_call_waits_for_its_turn():
    done = run(
        """
        import os, signal, threading, time
        import numpy as np, shmcompute as sc
        pool, arr = sc.Pool(2).ready(), sc.SharedArray(np.zeros(2))
        def waits(x):
            time.sleep(0.5)
            x += 1
        first = sc.plan(waits, arr, pool=pool).submit()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            sc.parallel_apply(np.negative, arr, pool=pool)
        except KeyboardInterrupt:
            print("interrupted", first.done())
        first.result()
        print(arr.array.tolist())
        """
    )
    assert done.stdout == "interrupted False\n[1.0, 1.0]\n"


def test_a_handler_of_a_signal_may_call_while_calls_wait(own_pool):
    """It cuts a call short that others wait for: it can't wait for these."""
    heard = []
    with sc.SharedArray(np.zeros(2)) as arr, sc.SharedArray(np.zeros(2)) as other:
        step = sc.plan(np.add, other, 1.0, pool=own_pool)

        def handler(*_):
            step.submit()
            step()
            heard.append(other.array.tolist())

        def kernel(x):
            if x[0] == 0:
                os.kill(parent, signal.SIGUSR1)

        parent = os.getpid()
        before = signal.signal(signal.SIGUSR1, handler)
        try:
            for _ in range(5):
                sc.parallel_apply(kernel, arr, pool=own_pool)
            step()
        finally:
            signal.signal(signal.SIGUSR1, before)
    assert heard


@pytest.mark.parametrize("own", [True, False])
def test_calls_whose_backend_is_chosen_keep_their_order(own):
    """Whichever workers each gets; a pool of one's own, and the common one."""
    with sc.SharedArray(np.zeros(4)) as arr:
        pool = sc.Pool(2, backend="auto") if own else None
        where = {"pool": pool} if own else {"backend": "auto"}
        step = sc.plan(_append, arr, 1, **where)
        for number in range(1, 5):
            step.submit(number)
        sc.parallel_apply(_append, arr, 5, **where)
        assert arr.array.tolist() == [12345.0] * 4
        step.submit(6)
        step(7)
        last = step.submit(8)
        assert sc.parallel_reduce(np.max, arr, combine=np.maximum, **where) == 12345678
        assert last.done()
        step.submit(9)
        sc.parallel_iterate(_append, arr, 0, times=1, **where)
        assert arr.array.tolist() == [1234567890.0] * 4
        if own:
            last = step.submit(1)
            pool.close()
            assert last.result() is None
            with pytest.raises(ClosedError):
                step.submit(2)


def test_a_pool_whose_workers_can_not_be_ended_takes_calls_still():
    with sc.Pool(2, backend="threads") as pool, sc.SharedArray.zeros(4) as arr:
        with pytest.raises(NotImplementedError):
            pool.terminate_workers()
        sc.plan(np.add, arr, 1.0, pool=pool).submit().result(timeout=60)
        assert (arr.array == 1).all()

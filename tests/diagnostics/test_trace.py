"""A trace tells what was done, once, by whom and when; and nothing while nobody traces."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time

import kernels
import numba as nb
import numpy as np
import pytest

import shmcompute as sc
from shmcompute.backends.doorbell import ControlMapping, DoorbellCaller, control_block, no_bases
from shmcompute.diagnostics import trace as tracing
from shmcompute.errors import WorkerLostError
from shmcompute.system import recording


def fresh_kernel():
    """A kernel that nobody has compiled."""

    @nb.njit
    def fresh(x):
        x += 1

    return fresh


def die_at(x, start, where):
    if start == where:
        os.kill(os.getpid(), signal.SIGKILL)


def check(call, plan):
    """Each chunk stands there once, within the call, and no worker did two at a time."""
    assert call.called <= call.began <= call.ended
    assert sorted(chunk.number for chunk in call.chunks) == list(range(len(plan.chunks)))
    for chunk in call.chunks:
        assert (chunk.start, chunk.stop) == plan.chunks[chunk.number]
        assert call.began <= chunk.began <= chunk.ended <= call.ended
        assert not chunk.unfinished
        assert chunk.lane in call.workers
    for lane in call.workers:
        own = [chunk for chunk in call.chunks if chunk.lane == lane]
        for one, following in zip(own, own[1:], strict=False):
            assert one.ended <= following.began


@pytest.mark.parametrize("kernel", [kernels.affine, kernels.affine_python, np.negative])
def test_each_chunk_of_each_call_is_recorded_once(any_pool, kernel):
    numbers = () if kernel is np.negative else (2.0, 1.0)
    with sc.SharedArray(np.arange(100.0)) as arr:
        for schedule, chunksize in (("static", None), ("dynamic", 7), ("guided", None)):
            options = {"pool": any_pool, "schedule": schedule, "chunksize": chunksize}
            plan = sc.plan(kernel, arr, *numbers, **options)
            with sc.trace() as t:
                before = time.monotonic_ns()
                sc.parallel_apply(kernel, arr, *numbers, **options)
                plan()
                plan()
                after = time.monotonic_ns()
            assert len(t.calls) == 3
            assert t.lost == 0
            for call in t.calls:
                check(call, plan)
                assert before <= call.called <= call.ended <= after
                assert call.error == ""


def test_a_worker_is_known_by_its_process(process_pool):
    with sc.SharedArray(np.arange(4.0)) as arr, sc.trace() as t:
        sc.parallel_apply(kernels.affine_python, arr, 2.0, 1.0, pool=process_pool)
    (call,) = t.calls
    assert [lane.pid for lane in call.workers] == process_pool.pids
    assert {chunk.lane.pid for chunk in call.chunks} == set(process_pool.pids)


def test_nothing_is_recorded_while_nobody_traces(any_pool):
    with sc.SharedArray(np.arange(4.0)) as arr:
        plan = sc.plan(np.negative, arr, pool=any_pool)
        plan()
        with sc.trace() as t:
            pass
        plan()
        assert recording.recorder is None
        with sc.trace() as later:
            plan()
    assert (t.calls, t.tasks) == ([], [])
    assert len(later.calls) == 1
    check(later.calls[0], plan)


def test_traces_are_nested_and_tell_each_its_own(any_pool):
    with sc.SharedArray(np.arange(4.0)) as arr:
        plan = sc.plan(np.negative, arr, pool=any_pool)
        with sc.trace() as outer:
            plan()
            with sc.trace() as inner:
                plan()
                assert len(inner.calls) == 1  # so far
            plan()
    assert (len(outer.calls), len(inner.calls)) == (3, 1)
    assert outer.calls[1].called == inner.calls[0].called


def test_traces_may_overlap(pools):
    with sc.SharedArray(np.arange(4.0)) as arr:
        plan = sc.plan(np.negative, arr, pool=pools["threads"])
        first, second = sc.trace(), sc.trace()
        first.__enter__()
        plan()
        second.__enter__()
        plan()
        first.__exit__()
        plan()
        second.__exit__()
    assert (len(first.calls), len(second.calls)) == (2, 2)


def test_several_threads_and_pools_are_told_apart(pools):
    chosen = [pools[name] for name in ("caller", "threads", "fork")]

    def work(pool, arr):
        for _ in range(20):
            sc.parallel_apply(kernels.affine, arr, 1.0, 1.0, pool=pool)

    with sc.SharedArray.zeros(64) as arr, sc.SharedArray.zeros(64) as other, sc.trace() as t:
        threads = [
            threading.Thread(target=work, args=(pool, array))
            for pool in chosen
            for array in (arr, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(t.calls) == 120
    assert all(
        sorted(one.number for one in call.chunks) == [0, 1]
        for call in t.calls
        if "serial" not in call.pool
    )
    pools_seen = {call.pool for call in t.calls} - {"serial"}  # a threads pool that is at work
    assert len(pools_seen) == 3


def test_a_loop_a_chain_and_sweeps_are_calls_too(pools):
    @nb.njit
    def mean(new, old):
        for i in range(new.size):
            new[i] = (old[i] + old[i + 2]) / 2

    pool = pools["caller"]
    with sc.SharedArray(np.arange(100.0)) as a, sc.SharedArray.zeros(100) as b, sc.trace() as t:
        sc.parallel_for(kernels_range, 0, 10, pool=pool)
        sc.parallel_apply([np.negative, np.square], a, pool=pool)
        sc.parallel_iterate(
            mean, b, sc.halo(a, 1, boundary="edge"), times=10, swap=(b, a), pool=pool
        )
    assert [call.name for call in t.calls][:2] == ["kernels_range", "negative + square"]
    assert len(t.calls) > 2
    assert all(call.chunks for call in t.calls)


def kernels_range(start, stop):
    pass


def test_what_was_compiled_and_sent_is_told(pools):
    with sc.SharedArray(np.zeros(8)) as arr, sc.trace() as t:
        sc.parallel_apply(fresh_kernel(), arr, pool=pools["fork"])
    told = t.summary()
    (group,) = told.groups
    assert all(row.compiling > 0 for row in group.rows)
    assert any(note.startswith("compiled ") and "fresh" in note for note in told.notes)
    assert any(note.startswith("sent to workers ") and "fresh" in note for note in told.notes)


def test_what_a_worker_compiles_is_told_as_its_own():
    """Within its chunk: before and after that it worked."""

    def compiles(x):
        fresh_kernel()(x)

    with sc.Pool(2, start_method="fork") as pool, sc.SharedArray(np.zeros(2)) as arr:
        with sc.trace() as t:
            sc.parallel_apply(compiles, arr, pool=pool)
        np.testing.assert_array_equal(arr.array, np.ones(2))
    (call,) = t.calls
    assert sorted(chunk.number for chunk in call.chunks) == [0, 1]
    assert {one.lane for one in call.compilations} == set(call.workers)
    for one in call.compilations:
        (chunk,) = (chunk for chunk in call.chunks if chunk.lane == one.lane)
        assert chunk.began <= one.began <= one.ended <= chunk.ended
    (group,) = t.summary().groups
    for row in group.rows:
        assert row.compiling > 0
        assert row.seconds == pytest.approx(call.seconds)


def test_tasks_are_recorded_with_their_worker(any_pool):
    with sc.trace() as t:
        results = [any_pool.submit(whoami, number).result() for number in range(3)]
        with pytest.raises(ZeroDivisionError):
            any_pool.submit(divmod, 1, 0).result()
    assert [task.name for task in t.tasks] == ["whoami"] * 3 + ["divmod"]
    for task, pid in zip(t.tasks, results, strict=False):
        assert task.lane.pid == pid
        assert 0 < task.submitted <= task.began <= task.ended


def whoami(number):
    return os.getpid()


def test_tiny_tasks_are_each_recorded(pools):
    with sc.trace() as t:
        list(pools["fork"].map(abs, range(200)))
    assert len(t.tasks) == 200
    assert all(task.began and task.ended >= task.began for task in t.tasks)


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_death_keeps_what_was_written(method):
    t = sc.trace()
    with sc.Pool(2, start_method=method) as pool, sc.SharedArray(np.zeros(8)) as arr, t:
        with pytest.raises(WorkerLostError):
            sc.parallel_apply(die_at, arr, sc.offset, 5, pool=pool, chunksize=1)
        sc.parallel_apply(np.negative, arr, pool=pool)
    lost, after = t.calls
    assert lost.error == "WorkerLostError"
    assert [chunk.number for chunk in lost.chunks if chunk.unfinished] == [5]
    assert {1, 3} <= {chunk.number for chunk in lost.chunks}
    assert sorted(chunk.number for chunk in after.chunks) == [0, 1]
    assert not any(chunk.unfinished for chunk in after.chunks)
    (group,) = [group for group in t.summary().groups if group.name == "die_at"]
    assert group.errors == ["WorkerLostError"]
    assert sum(row.unfinished for row in group.rows) == 1


def test_starts_deaths_and_retries_are_told(tmp_path):
    t = sc.trace()
    with t, sc.Pool(2, start_method="fork") as pool, sc.SharedArray(np.zeros(8)) as arr:
        marker = str(tmp_path / "died")
        sc.parallel_apply(once, arr, sc.offset, marker, pool=pool, chunksize=1, retries=1)
    (group,) = t.summary().groups
    assert sum(row.starting for row in group.rows) > 0
    notes = "\n".join(t.summary().notes)
    assert "was lost: killed by SIGKILL" in notes
    assert "once: " in notes
    assert "run again" in notes


def once(x, start, marker):
    if start == 4 and not os.path.exists(marker):
        open(marker, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    x += 1


def test_retries_are_one_call(tmp_path):
    with sc.Pool(2, start_method="fork") as pool, sc.SharedArray(np.zeros(8)) as arr:
        with sc.trace() as t:
            marker = str(tmp_path / "died")
            sc.parallel_apply(once, arr, sc.offset, marker, pool=pool, chunksize=1, retries=1)
        np.testing.assert_array_equal(arr.array, np.ones(8))
    (call,) = t.calls
    assert (call.runs, call.error) == (2, "")
    finished = [chunk.number for chunk in call.chunks if not chunk.unfinished]
    assert sorted(finished) == list(range(8))


def test_a_kernel_that_raises_is_recorded(any_pool):
    t = sc.trace()
    with sc.SharedArray(np.zeros(4)) as arr, pytest.raises(ValueError, match="zero"), t:
        sc.parallel_apply(kernels.fails, arr, pool=any_pool)
    (call,) = t.calls
    assert call.error == "ValueError"
    assert call.chunks


def test_the_times_of_a_summary_add_up(any_pool):
    with sc.SharedArray(np.zeros(100)) as arr, sc.trace() as t:
        for _ in range(3):
            sc.parallel_apply(kernels.affine_python, arr, 1.0, 1.0, pool=any_pool, chunksize=9)
    (group,) = t.summary().groups
    singles = t.summary(each=True).groups
    assert (group.calls, group.chunks, len(singles)) == (3, 36, 3)
    took = sum(call.seconds for call in t.calls)
    assert group.seconds == pytest.approx(took)
    assert sum(row.chunks for row in group.rows) == 36
    for row in group.rows:
        assert row.seconds == pytest.approx(took)
        done = [one for call in t.calls for one in call.chunks if one.lane == row.lane]
        assert row.working == pytest.approx(sum(chunk.seconds for chunk in done))
        assert min(row.working, row.waiting, row.starting, row.compiling) >= 0
    for column in ("working", "waiting", "starting", "compiling"):
        parts = sum(getattr(row, column) for one in singles for row in one.rows)
        assert parts == pytest.approx(sum(getattr(row, column) for row in group.rows))


def late(x, start):
    time.sleep(0.2 if start else 0)  # by far longer than a worker of a busy machine may be held up


def test_a_summary_names_the_late_worker_and_its_share(process_pool):
    with sc.SharedArray(np.zeros(2)) as arr, sc.trace() as t:
        sc.parallel_apply(late, arr, sc.offset, pool=process_pool)
    (group,) = t.summary().groups
    assert group.late.lane.pid == process_pool.pids[1]
    assert 0.5 < group.share <= 1
    assert group.imbalance == pytest.approx(2 * group.share)
    assert f"worker 1 (pid {process_pool.pids[1]}) is late" in str(t.summary())


@pytest.mark.parametrize("own", [False, True])
def test_records_for_which_there_is_no_room_are_counted(own, monkeypatch):
    """A whole run on one slot's ring, which is smaller than the run."""
    count = control_block.RECORDS + 500
    with (
        sc.Pool(1 + own, caller_runs=own) as pool,
        sc.SharedArray(np.zeros(count * (1 + own), "i1")) as arr,
    ):
        with sc.trace() as t:
            sc.parallel_apply(kernels_touch, arr, chunksize=1, pool=pool.ready())
            sc.parallel_apply(kernels_touch, arr, chunksize=count // 2, pool=pool)
        first, second = t.calls
        assert len(first.chunks) + t.lost == count * (1 + own)
        assert len(second.chunks) == -(-count * (1 + own) // (count // 2))


@nb.njit
def kernels_touch(x):
    x += 1


def test_beyond_its_limit_a_trace_counts(pools):
    with sc.SharedArray(np.zeros(4)) as arr, sc.trace(limit=4) as t:
        for _ in range(10):
            sc.parallel_apply(np.negative, arr, pool=pools["serial"])
        result = arr.array.copy()
    assert 1 <= len(t.calls) <= 2
    assert t.lost >= 10 - len(t.calls)
    assert f"{t.lost} records were lost" in str(t.summary())
    np.testing.assert_array_equal(result, np.zeros(4))


def test_a_ring_is_read_while_it_is_written():
    """Some lie there, one is being made; none is read twice."""
    block = ControlMapping(1, fd=-1)
    caller, slot = DoorbellCaller(block, 0, no_bases().ctypes.data), block.slot(0)
    for lap in range(3):
        for number in range(control_block.RECORDS):
            control_block.begin(block.address, slot, 7, number)
            if number % 1000 == 500:
                rows = caller.take_records()[0]
                assert rows[-1].tolist()[:2] == [7, number]
                assert rows[-1, 3] == 0
                assert (rows[:-1, 3] >= rows[:-1, 2]).all()
            control_block.end(block.address, slot)
        taken = caller.take_records()[0][:-1, 1].tolist()
        assert taken[-1] == control_block.RECORDS - 1, lap
        assert taken == list(range(taken[0], control_block.RECORDS))
    assert caller.take_lost() == 0


def test_a_full_ring_keeps_the_first():
    block = ControlMapping(1, fd=-1)
    caller, slot = DoorbellCaller(block, 0, no_bases().ctypes.data), block.slot(0)
    for number in range(control_block.RECORDS + 5):
        control_block.begin(block.address, slot, 7, number)
        control_block.end(block.address, slot)
    assert caller.take_lost() == 5
    assert caller.take_records()[0][:-1, 1].tolist() == list(range(control_block.RECORDS))
    control_block.begin(block.address, slot, 8, 1)
    control_block.end(block.address, slot)
    assert caller.take_records()[0][0, :2].tolist() == [8, 1]
    assert caller.take_lost() == 0


def test_a_forked_child_traces_nothing_of_its_parent():
    read, write = os.pipe()
    with sc.SharedArray(np.zeros(4)) as arr, sc.trace() as t:
        pid = os.fork()
        if not pid:
            sc.parallel_apply(np.negative, arr, backend="serial")
            with sc.trace() as own:
                sc.parallel_apply(np.negative, arr, backend="serial")
            os.write(write, f"{len(own.calls)} {len(t.calls)}".encode())
            os._exit(0)
        os.waitpid(pid, 0)
        sc.parallel_apply(np.negative, arr, backend="serial")
    assert os.read(read, 99) == b"1 0"
    assert len(t.calls) == 1
    os.close(read)
    os.close(write)


def test_bad_use_is_refused():
    with pytest.raises(TypeError, match="limit: expected a whole number"):
        sc.trace(limit="many")
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        sc.trace(limit=0)
    t = sc.trace()
    with pytest.raises(RuntimeError, match="with statement"):
        t.summary()
    with t:
        pass
    with pytest.raises(RuntimeError, match="make another"):
        t.__enter__()
    with pytest.raises(TypeError, match="save"):
        pickle.dumps(t)
    assert str(t.summary()) == "no calls"


def test_an_error_in_the_block_ends_the_trace(pools):
    t = sc.trace()
    with sc.SharedArray(np.zeros(2)) as arr, pytest.raises(ZeroDivisionError), t:
        sc.parallel_apply(np.negative, arr, pool=pools["serial"])
        raise ZeroDivisionError
    assert recording.recorder is None
    assert not tracing._open
    assert len(t.calls) == 1

"""`Pool(max_tasks_per_child=...)`: workers are replaced after so many tasks; nothing is lost."""

from __future__ import annotations

import os
from collections import Counter
from multiprocessing import util

import numpy as np
import pytest

import shmcompute as sc
from shmcompute.errors import WorkerInitError


def _pid(_):
    return os.getpid()


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "most", "tasks"),
    [("fork", 1, 10), ("forkserver", 1, 6), ("forkserver", 3, 12), ("spawn", 2, 6)],
)
def test_none_does_more_and_all_are_done(method, most, tasks):
    with sc.Pool(2, start_method=method, max_tasks_per_child=most) as pool:
        done = Counter(pool.map(_pid, range(tasks)))
        assert len(pool.ready().pids) == 2
    assert sum(done.values()) == tasks
    assert max(done.values()) <= most


def test_tiny_tasks_that_go_together_are_counted_each():
    with sc.Pool(2, max_tasks_per_child=50) as pool:
        done = Counter(pool.map(_pid, range(400)))
    assert max(done.values()) <= 50
    assert sum(done.values()) == 400


def test_a_chunk_of_a_map_is_one_task():
    with sc.Pool(1, max_tasks_per_child=2) as pool:
        done = list(pool.map(_pid, range(40), chunksize=10))
    assert [len(set(done[part : part + 20])) for part in (0, 20)] == [1, 1]
    assert len(set(done)) == 2


def test_calls_do_not_count_and_go_on_with_those_that_are_there():
    with sc.Pool(2, max_tasks_per_child=1) as pool, sc.SharedArray(np.zeros(4)) as arr:
        step = sc.plan(np.add, arr, 1.0, pool=pool)
        for number in range(4):
            step()
            before = sorted(pool.pids)
            step()
            assert sorted(pool.pids) == before
            assert pool.submit(_pid, None).result() in before
            assert arr.array.tolist() == [2 * number + 2] * 4


def test_an_array_that_its_last_task_has_made_arrives(any_storage):
    def make(number):
        return sc.SharedArray(np.full(3, number), **storage)

    storage = dict(any_storage) if any_storage["storage"] != "file" else {"storage": "shm"}
    with sc.Pool(2, max_tasks_per_child=1) as pool:
        made = list(pool.map(make, range(4)))
        for number, arr in enumerate(made):
            assert arr.array.tolist() == [number] * 3
            assert arr.owner
            arr.close()


def test_those_that_come_are_initialized_and_one_that_can_not_is_an_error(tmp_path):
    def three_times():
        with open(tmp_path / "calls", "a") as file:
            file.write(".")
        if (tmp_path / "calls").stat().st_size > 3:
            raise LookupError("no more")

    with sc.Pool(1, max_tasks_per_child=1, initializer=three_times) as pool:
        tasks = [pool.submit(abs, -number) for number in range(5)]
        assert [task.result() for task in tasks[:3]] == [0, 1, 2]
        with pytest.raises(WorkerInitError, match="no more"):
            tasks[3].result()


def test_finalizers_of_a_worker_that_is_replaced_run(tmp_path):
    def register(name):
        util.Finalize(None, (tmp_path / name).touch, exitpriority=1)
        return os.getpid()

    with sc.Pool(1, max_tasks_per_child=1) as pool:
        assert len({pool.submit(register, name).result() for name in "ab"}) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("end", ["terminate_workers", "kill_workers"])
def test_a_pool_whose_workers_are_being_replaced_can_be_ended(end):
    pool = sc.Pool(2, max_tasks_per_child=1)
    futures = [pool.submit(_pid, None) for _ in range(20)]
    futures[0].result()
    getattr(pool, end)()
    pool.close()
    assert all(future.done() for future in futures)


@pytest.mark.parametrize(("most", "kind"), [(0, ValueError), (1.5, TypeError), (True, TypeError)])
def test_bad_numbers_are_named(most, kind):
    with pytest.raises(kind, match="max_tasks_per_child"):
        sc.Pool(2, max_tasks_per_child=most)


def test_who_has_no_processes_says_so(monkeypatch):
    with pytest.raises(ValueError, match="backend='threads' has none"):
        sc.Pool(2, backend="threads", max_tasks_per_child=1)
    monkeypatch.setenv("SHMCOMPUTE_BACKEND", "serial")  # to debug a program as it stands
    with sc.Pool(2, max_tasks_per_child=1) as pool:
        assert pool.submit(abs, -1).result() == 1

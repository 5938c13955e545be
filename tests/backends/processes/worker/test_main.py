"""What workers have of their parent, and how they end."""

from __future__ import annotations

import os
import time

import kernels
import numpy as np
import pytest
from methods import METHODS

import shmcompute as sc


@pytest.fixture(params=METHODS)
def fresh_pool(request):
    """A pool whose workers start in the test."""
    return lambda workers=1: sc.Pool(workers, backend="processes", start_method=request.param)


def draw(x):
    x[:] = np.random.standard_normal(x.shape)


@pytest.mark.long
def test_workers_draw_different_numbers(fresh_pool):
    with fresh_pool(2) as pool, sc.SharedArray.zeros(64) as arr:
        sc.parallel_apply(draw, arr, pool=pool)
        assert np.unique(arr.array).size == 64


def test_workers_have_the_environment_of_the_time_they_start(fresh_pool, monkeypatch):
    """A fork server has kept that of its own start."""
    monkeypatch.setenv("SHMCOMPUTE_TEST", "old")
    with fresh_pool() as pool:
        assert pool.submit(os.getenv, "SHMCOMPUTE_TEST").result() == "old"
    monkeypatch.delenv("SHMCOMPUTE_TEST")
    monkeypatch.setenv("SHMCOMPUTE_TEST_2", "new")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    with fresh_pool() as pool:
        assert pool.submit(os.getenv, "SHMCOMPUTE_TEST").result() is None
        assert pool.submit(os.getenv, "SHMCOMPUTE_TEST_2").result() == "new"


def test_so_they_have_its_time_zone(monkeypatch):
    with sc.Pool(1, backend="processes", start_method="forkserver") as pool:
        pool.ready()  # so the fork server runs
    monkeypatch.setenv("TZ", "XYZ-5:45")
    with sc.Pool(1, backend="processes", start_method="forkserver") as pool:
        assert pool.submit(time.strftime, "%z").result() == "+0545"


MAKES_A_SEMAPHORE = """
import multiprocessing, sys
import shmcompute as sc

def work(_):
    globals()["lock"] = multiprocessing.get_context("spawn").Lock()

with sc.Pool(1, start_method=sys.argv[1]) as pool:
    pool.submit(work, 1).result()
"""


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_what_tasks_leave_is_cleared_away(method):
    """The resource tracker would print what it finds at the program's end."""
    kernels.run(MAKES_A_SEMAPHORE, method)


def at_exit(path):
    import atexit  # noqa: PLC0415
    from multiprocessing import util  # noqa: PLC0415

    util.Finalize(None, path.write_text, ("finalized",), exitpriority=1)
    atexit.register(print, "exit handlers", file=path.with_suffix(".exit").open("w"), flush=True)


def test_finalizers_run(fresh_pool, tmp_path):
    with fresh_pool() as pool:
        pool.submit(at_exit, tmp_path / "told").result()
    assert (tmp_path / "told").read_text() == "finalized"


@pytest.mark.soak
def test_exit_handlers_run_in_spawned_interpreters(tmp_path):
    """As in the standard library, there and nowhere else."""
    with sc.Pool(1, backend="processes", start_method="spawn") as pool:
        pool.submit(at_exit, tmp_path / "told").result()
    assert (tmp_path / "told.exit").read_text() == "exit handlers\n"

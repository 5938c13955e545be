"""The log and the events behind it: what happens is told once, and nothing loud if all is well."""

from __future__ import annotations

import ast
import logging
import os
import re
import signal
from multiprocessing import connection
from pathlib import Path

import kernels
import numba as nb
import numpy as np
import pytest
from kernels import run

import shmcompute as sc
from shmcompute import events, log

SOURCE = Path(sc.__file__).parent


@pytest.fixture
def told(caplog):
    """What the log says, from DEBUG on: (level, event, message) of each line."""
    caplog.set_level(logging.DEBUG, "shmcompute")

    def lines(event=None):
        found = [(one.levelname, one.event, one.getMessage()) for one in caplog.records]
        return [line for line in found if event in (None, line[1])]

    return lines


@pytest.fixture
def doomed_pool():
    with sc.Pool(2) as pool:
        yield pool.ready()


def _die_at(x, at, death):
    if x[0] == at and death():
        os.kill(os.getpid(), signal.SIGKILL)
    x += 1


def test_a_healthy_run_says_nothing_above_debug(told):
    with sc.Pool(2) as pool, sc.SharedArray(np.arange(4.0)) as arr:
        sc.parallel_apply(np.negative, arr, pool=pool)
        assert pool.submit(abs, -1).result() == 1
        pids = pool.pids
    assert {level for level, _, _ in told()} == {"DEBUG"}
    for event in ("worker_started", "worker_ready", "worker_ended"):
        pattern = rf"worker \d .*process ({pids[0]}|{pids[1]})"
        assert [bool(re.match(pattern, text)) for *_, text in told(event)] == [True, True]
    assert told("plan_sent")[0][2].startswith("plan of negative sent to 2 workers: ")


def test_the_repeated_call_tells_nothing(told, any_pool):
    with sc.SharedArray(np.arange(4.0)) as arr:
        step = sc.plan(np.negative, arr, pool=any_pool)
        step()
        before = len(told())
        for _ in range(10):
            step()
            sc.parallel_apply(np.negative, arr, pool=any_pool)
        assert told()[before + 1 :] == []  # but for the plan of parallel_apply


@pytest.mark.long
def test_a_death_that_raises_is_no_warning(told, doomed_pool):
    with sc.SharedArray(np.arange(2.0)) as arr:
        with pytest.raises(sc.errors.WorkerLostError):
            sc.parallel_apply(_die_at, arr, 1.0, lambda: True, pool=doomed_pool)
        sc.parallel_apply(np.negative, arr, pool=doomed_pool)
    assert [level for level, *_ in told("worker_lost")] == ["INFO"]
    assert "(killed by SIGKILL)" in told("worker_lost")[0][2]
    with pytest.raises(sc.errors.WorkerLostError):
        doomed_pool.submit(os._exit, 3).result()
    assert [level for level, *_ in told("worker_lost")] == ["INFO", "INFO"]
    assert "(exit code 3)" in told("worker_lost")[1][2]
    doomed_pool.ready()


def test_a_death_that_a_retry_hides_is_a_warning(told, doomed_pool, tmp_path):
    flag = tmp_path / "died"

    def death():
        try:
            flag.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    with sc.SharedArray(np.arange(2.0)) as arr:
        sc.parallel_apply(_die_at, arr, 1.0, death, pool=doomed_pool, retries=2)
        assert arr.array.tolist() == [1, 2]
    level, _, text = told("chunks_retried")[0]
    assert level == "WARNING"
    assert text.startswith("1 chunks of _die_at are run again, retry 1 of 2: worker ")


def test_a_death_between_calls_is_a_warning(told, doomed_pool):
    """No error tells of it: the next call finds the worker gone and replaces it."""
    pid = doomed_pool.ready().pids[0]
    end = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    connection.wait([end])
    os.close(end)
    doomed_pool.ready()
    assert pid not in doomed_pool.pids
    assert [line[0] for line in told("worker_lost")] == ["WARNING"]


def test_a_worker_that_overran_was_killed_here(told, doomed_pool):
    with sc.SharedArray(np.arange(2.0)) as arr, pytest.raises(sc.errors.KernelTimeoutError):
        sc.parallel_apply(kernels.stop_forever, arr, pool=doomed_pool.ready(), timeout=0.1)
    assert {line[0] for line in told("worker_killed")} == {"INFO"}
    doomed_pool.ready()
    assert told("worker_lost") == []


def test_a_kernel_that_goes_as_source_says_why(told):
    @nb.jit(forceobj=True)
    def kernel(x):
        x[:] = 3

    with sc.Pool(2) as pool, sc.SharedArray(np.arange(2.0)) as arr:
        sc.parallel_apply(kernel, arr, pool=pool)
    level, _, text = told("kernel_as_source")[0]
    assert level == "INFO"
    assert "object mode" in text


def test_storage_that_falls_back_is_told(told, monkeypatch):
    from shmcompute.storage import factory

    def full(layout, name):
        raise sc.errors.StorageFullError("no room")

    monkeypatch.setattr(factory, "_warned", True)
    monkeypatch.setitem(factory._CREATE, "shm", full)
    with sc.SharedArray(np.zeros(2)) as arr:
        assert arr.storage == "array"
    assert told("storage_fallback") == [
        ("INFO", "storage_fallback", "storage='array' in place of 'shm': no room")
    ]


@pytest.mark.long
def test_a_program_may_leave_the_log_alone():
    """Nothing is configured: no handler, no level, and not a word on stderr."""
    done = run(
        """
        import logging, os, numpy as np, shmcompute as sc
        with sc.Pool(2) as pool, sc.SharedArray(np.zeros(2)) as arr:
            sc.parallel_apply(np.negative, arr, pool=pool)
            try:
                pool.submit(os._exit, 1).result()
            except sc.errors.WorkerLostError:
                pass
        logger = logging.getLogger("shmcompute")
        print(logger.handlers, logger.level)
        """
    )
    assert (done.stdout, done.stderr) == ("[] 0\n", "")


def test_segments_that_were_reaped_are_told():
    run(
        """
        import os, numpy as np, shmcompute as sc
        arr = sc.SharedArray(np.zeros(2), name="left-behind-for-the-log")
        os._exit(0)
        """
    )
    done = run(
        """
        import logging, sys, numpy as np, shmcompute as sc
        logging.basicConfig(stream=sys.stdout, level="INFO", format="%(levelname)s %(message)s")
        sc.SharedArray(np.zeros(2)).close()
        """
    )
    pattern = (
        r"INFO segment 'left-behind-for-the-log' \(\d+ bytes\) removed: its processes have died"
    )
    assert re.search(pattern, done.stdout)


def test_a_listener_that_fails_harms_nobody():
    stop = events.listen(lambda event, facts: 1 / 0)
    try:
        events.tell("worker_ready", pid=1, number=0)
    finally:
        stop()


def test_each_event_that_is_told_has_its_line_and_stands_in_the_table():
    told = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "tell":
                told |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    table = set(re.findall(r"^(\w+_\w+) ", events.__doc__, re.M))
    assert told >= {"worker_started", "segment_reaped"}
    assert told == set(log._LINES)
    assert told <= table


def test_an_event_that_the_log_does_not_know_is_told_as_it_is(told):
    events.tell("something_new", size=3)
    events.tell("nothing_more")
    assert [text for *_, text in told()] == ["something_new size=3", "nothing_more"]

"""Whoever dies above them, workers end and memory goes; who lives keeps what is theirs."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from faults import programs
from faults.trial import GROUP, PARENT, scaled

import shmcompute as sc
from shmcompute.config import START_METHODS, WAITS

pytestmark = pytest.mark.soak
SHM = Path("/dev/shm")
SOON = 2.0  # seconds that workers have


def _only(number):
    return lambda process: process.send_signal(number)


def _all(number):
    return lambda process: os.killpg(process.pid, number)


WAYS = {
    PARENT: [_only(signal.SIGKILL), _only(signal.SIGKILL), _only(signal.SIGTERM)],
    GROUP: [_all(signal.SIGKILL)],
}


@pytest.mark.parametrize("name", WAYS)
def test_what_a_killed_program_leaves_is_gone(name, counts):
    def kill(number):
        return _killed(WAYS[name][number % len(WAYS[name])], number)

    with counts.trial(name) as trial, sc.SharedArray(np.ones(1000), storage="shm") as live:
        for stayed, seconds, lost, segments in programs.side_by_side(kill, range(scaled(100))):
            trial.count += 1
            trial.never("workers after 2 s", stayed)
            trial.never("live segments removed", lost + (not (SHM / live.name).exists()))
            trial.never("segments after the next start", segments)
            trial.within("last worker gone", seconds, most=SOON)


def _killed(how, number):
    """Kill a program; how many stayed, for how long, what others took from it, what it left."""
    method = START_METHODS[number % 3]
    waiting = WAITS[number // 3 % 2]
    env = {**programs.environment(), "SHMCOMPUTE_WAIT": waiting}
    process = programs.started("victim", method, process_group=0, env=env)
    names, pids = programs.lines(process, 2)
    family = [psutil.Process(int(pid)) for pid in pids]
    assert len(family) >= 2
    time.sleep(random.uniform(0, 0.05))  # the trial's random moment; nothing is synchronised by it
    lost = sum(not (SHM / name).exists() for name in names)
    began = time.monotonic()
    how(process)
    process.wait()
    # Not by wait_procs: who inherits them may take a while to reap them.
    while (left := [each for each in family if _lives(each)]) and time.monotonic() < began + 3:
        time.sleep(0.01)
    seconds = time.monotonic() - began
    for each in left:
        each.kill()
    process.communicate()
    code, _, err = programs.ended(programs.NEXT)
    assert (code, err) == (0, "")
    return len(left), seconds, lost, sum((SHM / name).exists() for name in names)


def _lives(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

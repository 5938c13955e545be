"""Programs among others that are stopped, patched, or given little: in time, right, or typed."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys

import pytest
from faults import programs
from faults.test_soak_full import can_mount
from faults.trial import HOSTILE, PATCHED, STOPPED, scaled

pytestmark = pytest.mark.soak
LIBRARIES = [name for name in ("gevent", "eventlet") if importlib.util.find_spec(name)]


def test_a_queues_user_that_is_stopped_keeps_nobody_waiting(counts):
    """Beyond his time-out; and nothing is lost or torn when it goes on."""
    with counts.trial(STOPPED) as trial:
        code, out, err = programs.ended("stopping", scaled(300), 5, timeout=900)
        for line in out.splitlines():
            late, wrong = line.split()
            trial.count += 1
            trial.within("beyond the time-out", late, most=0.5)
            trial.never("items lost or torn", int(wrong))
        trial.never("hangs", code is None)
        assert (code, trial.count, err) == (0, scaled(300), ""), (code, err)


@pytest.mark.skipif(not LIBRARIES, reason="needs gevent or eventlet")
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_patched_program_works(library, counts):
    """Calls, tasks, queues, locks, in greenlets side by side."""
    with counts.trial(PATCHED) as trial:
        seeds = range(math.ceil(scaled(60) / len(LIBRARIES)))
        for seed, (code, out, err) in programs.side_by_side(
            lambda seed: (seed, programs.ended("patched", library, seed)), seeds
        ):
            trial.count += 1
            for line in out.splitlines():
                step, wrong = line.split()
                trial.tell(step)
                trial.never("wrong results", int(wrong))
            trial.never("hangs", code is None)
            assert (code, err) == (0, ""), (library, seed, code, err)


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace of its own")
def test_what_the_system_does_not_give_is_a_typed_error_or_is_done_without(counts):
    """Shared memory, temporary files, descriptors, memory: whatever is missing, nothing crashes."""
    with counts.trial(HOSTILE) as trial:
        for seed, (code, out, err) in programs.side_by_side(_suffered, range(scaled(150))):
            trial.count += 1
            trial.never("hangs", code is None)
            trial.never("crashes", code != 0)
            for line in out.splitlines():
                _, found, typed = line.split()
                trial.tell("right" if found == "right" else "typed errors" if int(typed) else found)
                trial.never("wrong results", found == "wrong")
                trial.never("untyped errors", typed == "0")
            assert code == 0, (seed, code, out, err)


def _suffered(seed):
    command = ["unshare", "-m", sys.executable, programs.HERE / "hostile.py", str(seed)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=200, env=programs.environment()
        )
    except subprocess.TimeoutExpired:
        return seed, (None, "", "")
    return seed, (done.returncode, done.stdout, done.stderr)

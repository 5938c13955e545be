"""Programs that are interrupted, or end: in time, in silence, with nothing lost."""

from __future__ import annotations

import math

import pytest
from faults import programs
from faults.trial import COMPILES, EXITS, INTERRUPTS, RELOADS, scaled

from shmcompute.config import START_METHODS, WAITS

pytestmark = pytest.mark.soak
METHODS = [(method, waiting) for method in START_METHODS for waiting in WAITS]


def test_interrupts_come_through_and_the_pool_works_after(counts):
    """KeyboardInterrupt within a second, whatever runs, and then nobody writes."""
    times = math.ceil(scaled(200) / len(METHODS))

    def interrupt(pair):
        method, waiting = pair
        env = {**programs.environment(), "SHMCOMPUTE_WAIT": waiting}
        # Half a second of grace and new workers each time: minutes on a busy machine.
        given = (method, times, waiting)
        return pair, programs.ended("interrupted", *given, timeout=900, env=env)

    with counts.trial(INTERRUPTS) as trial:
        for pair, (code, out, err) in programs.side_by_side(interrupt, METHODS):
            for line in out.splitlines():
                took, writes, wrong = line.split()
                trial.count += 1
                trial.within("to KeyboardInterrupt", float(took), most=1.0)
                trial.never("writes after it", writes == "1")
                trial.never("wrong results of the next call", wrong == "1")
            trial.never("hangs", code is None)
            assert (code, err) == (0, ""), (pair, code, err)


def test_programs_end_in_silence(counts):
    """Whatever they closed or dropped, and in whatever order: exit code 0, nothing on stderr."""
    with counts.trial(EXITS) as trial:
        for seed, (code, out, err) in programs.side_by_side(_leave, range(scaled(200))):
            trial.count += 1
            trial.never("hangs", code is None)
            trial.never("exit codes but 0", code != 0)
            trial.never("words on stderr", err != "")
            assert (code, out, err) == (0, "", ""), f"program {seed}: {code} {err}"


def _leave(seed):
    return seed, programs.ended("leaver", seed)


def test_what_is_compiled_is_compiled_whole(counts):
    """Whatever handlers of signals raise meanwhile, the next kernel compiles, and is right."""
    with counts.trial(COMPILES) as trial:
        code, out, err = programs.ended("compiling", scaled(400), 5, timeout=1200)
        for line in out.splitlines():
            broken, wrong = line.split()
            trial.count += 1
            trial.never("kernels that did not compile", broken == "1")
            trial.never("wrong results", wrong == "1")
        trial.never("hangs", code is None)
        assert (code, trial.count, err) == (0, scaled(400), ""), (code, err)


def test_modules_that_are_loaded_again_are_what_runs(counts, tmp_path):
    """In kernels, tasks, and what they call in other modules."""
    with counts.trial(RELOADS) as trial:
        code, out, err = programs.ended("reloading", scaled(1000), 5, tmp_path, timeout=600)
        for line in out.splitlines():
            trial.count += 1
            trial.never("results of code that was", line == "1")
        trial.never("hangs", code is None)
        assert (code, trial.count, err) == (0, scaled(1000), ""), (code, err)

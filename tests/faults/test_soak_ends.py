"""Programs that are interrupted, or end: in time, in silence, with nothing lost."""

from __future__ import annotations

import math

import pytest
from faults import programs
from faults.trial import EXITS, INTERRUPTS, scaled

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

"""Use without end holds as much after ten minutes as after one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import median

import pytest
from faults import programs
from faults.trial import MIXED, scaled

SECONDS = 600
GROWTH = 4.0  # MiB that a process may grow: allocators take memory in steps
ARENAS = 16.0  # and those of multiprocessing, in steps of up to 4 MiB
SUPPORT = Path(__file__).parents[1] / "support"  # `leaks`


@pytest.mark.soak
def test_mixed_use_does_not_drift(counts):
    """Medians of the last quarter against those of the second; the first is for warming up."""
    seconds = scaled(SECONDS)
    path = os.pathsep.join(filter(None, [str(SUPPORT), os.environ.get("PYTHONPATH")]))
    env = {**programs.environment(), "PYTHONPATH": path}
    with counts.trial(MIXED) as trial:
        code, out, err = programs.ended("mixed", seconds, env=env, timeout=seconds + 300)
        trial.never("hangs", code is None)
        assert (code, err) == (0, ""), (code, err)
        looks = [json.loads(line) for line in out.splitlines()]
        quarter = max(1, len(looks) // 4)
        early, late = looks[quarter : 2 * quarter] or looks, looks[-quarter:]
        trial.count += seconds
        trial.tell("turns", looks[-1]["turns"])
        for what in sorted(looks[0].keys() - {"at", "turns"}):
            grown = median(look[what] for look in late) - median(look[what] for look in early)
            if what.startswith("memory"):
                most = ARENAS if what == "memory of arenas" else GROWTH
                trial.within(f"{what} grew", grown, most=most, unit="MiB")
            else:
                trial.never(f"{what} more", max(0, grown))

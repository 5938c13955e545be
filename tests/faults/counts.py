"""Counts of the long trials: what each tried, what it found, whether that is within its bars.

A test takes the fixture `counts` and opens a trial; several tests may add to one::

    def test_parent_killed(counts):
        with counts.trial(PARENT) as trial:
            for number in trial.times(100):
                ...
                trial.never("workers left after 2 s", len(left))
                trial.within("last worker gone", seconds, most=2.0)

What breaks off is told, too, and a bar that is not held fails the test. ``tox run -e soak`` runs
every test that is marked ``soak`` or takes this fixture; ``--counts=FILE`` keeps all as JSON.
``SHMCOMPUTE_SOAK=0.01`` makes a hundredth of each trial.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numba
import numpy as np
import pytest
from faults.trial import SCALE, TRIALS, Bar, Trial

from shmcompute import __version__
from shmcompute.system import cores


class Counts:
    """The trials of a session, by name."""

    def __init__(self):
        self._trials = {}

    def trial(self, name):
        """The trial of that name, to which others may have added."""
        assert name in TRIALS, f"{name!r} is not in trial.TRIALS"
        return self._trials.setdefault(name, Trial(name))

    def in_order(self):
        return [self._trials[name] for name in TRIALS if name in self._trials]

    def write(self, path):
        made = {
            "date": datetime.now(UTC).date().isoformat(),
            "scale": SCALE,
            "machine": machine(),
            "trials": [asdict(trial) for trial in self.in_order()],
        }
        Path(path).write_text(json.dumps(made))


def read(path):
    """What `Counts.write` has written, with trials by name."""
    made = json.loads(Path(path).read_text())
    for trial in made["trials"]:
        trial["bars"] = {what: Bar(**bar) for what, bar in trial["bars"].items()}
    made["trials"] = {trial["name"]: Trial(**trial) for trial in made["trials"]}
    return made


def machine():
    """Where it was run."""
    import cpuinfo  # of pytest-benchmark; takes a second

    return {
        "cpu": cpuinfo.get_cpu_info().get("brand_raw", platform.machine()),
        "cores": cores.granted(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "shmcompute": __version__,
    }


_counts = Counts()


@pytest.fixture
def counts():
    """Where a test of a long trial reports."""
    return _counts


def pytest_addoption(parser):
    parser.addoption("--counts", metavar="FILE", help="write the counts of the long trials there")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what reports here, so that ``-m "soak or counted"`` chooses it."""
    for item in items:
        if "counts" in getattr(item, "fixturenames", ()):
            item.add_marker("counted")


def pytest_terminal_summary(terminalreporter, config):
    if trials := _counts.in_order():
        terminalreporter.section("long trials")
    for trial in trials:
        held = "held" if trial.held else "NOT HELD"
        terminalreporter.write_line(
            f"{held:8}  {trial.name}: {trial.size} in {trial.seconds:.0f} s: {trial.found}"
        )
    if path := config.getoption("--counts"):
        _counts.write(path)

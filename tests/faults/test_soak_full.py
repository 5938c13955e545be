"""Arrays of all sizes around a full /dev/shm: room and right results, or a typed error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from faults import programs
from faults.trial import FULL, scaled

from shmcompute.config import START_METHODS


def can_mount():
    probe = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]
    try:
        return os.geteuid() == 0 and subprocess.run(probe, capture_output=True).returncode == 0
    except OSError:
        return False


pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not can_mount(), reason="needs a mount namespace of its own"),
]


@pytest.mark.parametrize("mebibytes", [1, 64])
@pytest.mark.parametrize("start_method", START_METHODS)
def test_a_full_shm_never_crashes(mebibytes, start_method, counts):
    """Each size is tried explicitly, then with the fallback, beside arrays that stay."""
    count = scaled(100 / 6)
    mount = f'mount -t tmpfs -o size={mebibytes}m tmpfs /dev/shm && exec "$0" "$@"'
    program = [sys.executable, programs.HERE / "filler.py", mebibytes, count, start_method]
    with counts.trial(FULL) as trial:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", mount, *map(str, program)],
            capture_output=True,
            text=True,
            timeout=300,
            env=programs.environment(),
        )
        trial.never("SIGBUS", "SIGBUS" in done.stderr or done.returncode == -7)
        trial.never("untyped errors")
        trial.never("wrong results")
        trial.never("segments left")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        for line in done.stdout.splitlines():
            found, untyped, wrong, left = line.split()
            trial.count += 1
            trial.tell(found)
            trial.never("untyped errors", int(untyped))
            trial.never("wrong results", int(wrong))
            trial.never("segments left", int(left))

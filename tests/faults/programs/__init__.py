"""Programs that are run to be killed, interrupted, or to end; each in an interpreter of its own.

They stand beside this file, and do nothing when imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shmcompute.system import cores

# The next one that makes an array.
NEXT = "import shmcompute as sc; sc.SharedArray([1.0], storage='shm').close()"


HERE = Path(__file__).parent


def environment():
    """That of a user: what the suite sets for itself is not in it."""
    ours = ("SHMCOMPUTE_WARM_BYTES", "SHMCOMPUTE_WORKERS", "SHMCOMPUTE_STORAGE")
    return {key: value for key, value in os.environ.items() if key not in ours}


def _program(program):
    path = HERE / f"{program}.py"
    return [path] if path.exists() else ["-c", program]


def started(program, *args, **options):
    """A program of this folder, or its text, that runs, with pipes for what it says."""
    return subprocess.Popen(
        [sys.executable, *_program(program), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **{"env": environment(), **options},
    )


def ended(program, *args, timeout=120, **options):
    """The same, when it has ended: its exit code, or None if it did not; what it said and wrote."""
    process = started(program, *args, **options)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        try:
            return None, *process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            return None, "", "it is killed, and others hold its pipes"
    return process.returncode, out, err


def lines(process, count, patience=60):
    """What it says first, word by word; it is killed if that takes too long."""
    guard = threading.Timer(patience, process.kill)
    guard.start()
    said = [process.stdout.readline().split() for _ in range(count)]
    guard.cancel()
    assert said[-1], process.communicate()[1]
    return said


def side_by_side(function, numbers):
    """Call it for each number, as many at a time as there are cores; the results as they come."""
    with ThreadPoolExecutor(cores.granted()) as executor:
        yield from executor.map(function, numbers)

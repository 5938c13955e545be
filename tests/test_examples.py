"""The examples run as they stand, in silence but for what they print, and stay short."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))

# What a reader should see; an example that is new needs its line here.
TOLD = {
    "async_server.py": [
        'status -> {"listening": true}',
        'frame -> {"warm": 1416, "heat": 40000}',
        'frame -> {"warm": 1944, "heat": 40000}',
    ],
    "compact.py": ["30345 of 1000000 events are above 3.5", "as NumPy's nonzero: True"],
    "fallback.py": ["storage='shm'", "storage='array'", "same result, bit for bit: True"],
    "group_mean.py": ["station 4: 199898 measurements, 22.0 degrees", "all: 1000000"],
    "heat.py": ["    .:--====+++++++++++===--::. ", "NumPy finds the same: True"],
    "image_filters.py": [
        "   noisy: 0.0198 off",
        "  median: 0.0046 off",
        "contrast: 0.338, sharpened 0.380",
    ],
    "image_stack.py": ["brightest pixel before: 5", "frames of deviation 1: 48"],
    "kmeans.py": ["points around (-4.0, -3.0)", "the true centres are found: True"],
    "larger_than_memory.py": [
        "recorded: 256 MiB; memory left: 96 MiB",
        "np.load: MemoryError",
        "detrended in place: [ 0.",
    ],
    "life.py": [
        "the glider went around the world: True",
        "2874 cells lived, 384 generations later 514",
        "NumPy finds the same: True",
    ],
    "matmul.py": [
        "20 blocks, the last from (384, 512) to (500, 600)",
        "NumPy finds the same: True",
        "and turned: True",
    ],
    "monte_carlo.py": [
        "price of the option: 3.478 +- 0.010",
        "serially the same: True",
        "paths drift as they should: True",
    ],
    "nbody.py": ["now within 0.32", "energy is kept: True, momentum: True"],
    "own_kernel.py": ["3000 stars", "forces add up to nothing: True"],
    "progress.py": ["% of the points stay", "100 % of 30 chunks", "half of it will do; it has"],
    "rolling_mean.py": ["99971 means of 30 days", "as by differences of sums: True"],
    "sort_and_quantiles.py": [
        "half of 500000 took below 20.1 ms, one of 100 above 206",
        "the file is sorted: True",
    ],
    "trace.py": [
        "late with one chunk each: worker 1, which does most of the work: True",
        "more even with small chunks: True",
        "is late, it did ",
    ],
    "waves.py": ["     .+#-++-+ --.- -+***+- -.-- +-++-#+.   ", "as much as there was: True"],
    "quickstart.py": ["after two half-lives: [  0.   62.5", "mean activity: 125.0 of 500.0"],
}

# These draw a picture, for the documentation, where they are given its name.
PICTURED = {
    "heat.py",
    "image_filters.py",
    "kmeans.py",
    "life.py",
    "nbody.py",
    "trace.py",
    "waves.py",
}

SOME = {"quickstart.py", "heat.py"}  # the suite runs these; `tox` runs all

# The standard library's patterns: what it prints in its form, and again in ours.
PATTERNS = {
    "counter.py": ["40000\n40000\n40000"],
    "doubled.py": ["[0 2 4 6 8]\n[0 2 4 6 8]"],
    "gather.py": ["[1, 2, 3, 4, 5, 6]\n[1, 2, 3, 4, 5, 6]"],
    "maps.py": [
        "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n[6, 20, 42]\n[0, 1, 4, 9, 16] ... 332833470\n" * 2
    ],
    "pipeline.py": ["sum of means: 190.0\nsum of means: 190.0"],
    "primes.py": ["81 primes: 100003, 100019, ... 100999\n" * 2],
    "processes.py": ["hello Ada", "hello Grace"],
    "start_methods.py": [
        f"{method} [1.5, 5.5] [1.5, 5.5]" for method in ("fork", "spawn", "forkserver")
    ],
}


def run(*command, **options):
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


@functools.cache
def can_draw():
    try:
        import matplotlib.font_manager  # its cache, which is made but once, and told of
    except ImportError:
        return False
    return bool(matplotlib.font_manager.fontManager)


def check(done, name):
    said = done.stderr.splitlines()
    # On a busy machine, a line of how far it is.
    assert all(name == "progress.py" and line.endswith(" chunks/s") for line in said), done.stderr
    assert done.returncode == 0
    if done.stdout.startswith("skipped: "):
        pytest.skip(done.stdout)
    for line in (TOLD | PATTERNS)[name]:
        assert line in done.stdout


def test_each_is_known():
    """No example goes unchecked, and none that is checked is gone."""
    assert [path.name for path in EXAMPLES] == sorted(TOLD)
    assert sorted(path.name for path in (FOLDER / "patterns").glob("*.py")) == sorted(PATTERNS)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.name, marks=[] if path.name in SOME else [pytest.mark.long])
        for path in EXAMPLES
    ],
)
def test_runs(path, tmp_path):
    """It ends well, warns of nothing, says what it should, and draws what it can."""
    picture = [str(tmp_path / "picture.png")] if path.name in PICTURED and can_draw() else []
    check(run(str(path), *picture, env=os.environ | {"MPLBACKEND": "agg"}), path.name)
    assert [str(found) for found in tmp_path.iterdir()] == picture


def test_what_draws_is_known():
    """An example that takes a picture's name is run with one."""
    assert {path.name for path in EXAMPLES if "sys.argv[1]" in path.read_text()} == PICTURED


@pytest.mark.long
@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_tells_the_same_in_both_forms(name):
    done = run("-W", "ignore::DeprecationWarning", str(FOLDER / "patterns" / name))
    check(done, name)
    if name == "processes.py":  # processes of one caller; a worker may do both tasks
        told = done.stdout.replace(";", " ").split()
        assert len({pid for pid in told if pid.isdecimal()}) in (4, 5)


@pytest.mark.long
@pytest.mark.parametrize("name", ["quickstart.py", "image_stack.py"])
def test_runs_from_stdin(name):
    """Kernels of a script that is no file can't be imported; they run all the same."""
    check(run("-", input=(FOLDER / name).read_text()), name)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_is_short_and_has_no_guard(path):
    """Under 60 lines, and nothing to keep worker processes from importing it."""
    text = path.read_text()
    assert len(text.splitlines()) < 60
    assert "__main__" not in text

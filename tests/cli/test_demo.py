"""The demo computes what NumPy computes, to the last bit, and would say so if it did not."""

from __future__ import annotations

import dataclasses
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from shmcompute import progress
from shmcompute.arrays.shared_array import SharedArray
from shmcompute.cli import demo, main
from shmcompute.cli.demo_kernels import TRIALS, collatz_numpy, logistic_numpy, stream_numpy

SMALL = ["demo", "--size", "1", "--repeat", "1", "--workers", "2"]
NAMES = ["stream", "logistic", "collatz"]


def rows(text):
    """Kernel, backend and verdict of each row of the table."""
    table = text[text.index("\nkernel ") + 1 :].split("\n\n")[0]
    cells = [line.split() for line in table.splitlines()[1:]]
    return [(row[0], row[1], row[-1]) for row in cells]


@pytest.fixture
def serial(monkeypatch):
    """One backend is enough for what does not depend on it."""
    monkeypatch.setattr(demo, "BACKENDS", ("serial",))


@pytest.mark.long
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_every_row_is_exact_and_nothing_is_left(method):
    """Three kernels on three backends are exactly NumPy's; no segment stays; exit code 0."""
    done = subprocess.run(
        [sys.executable, "-m", "shmcompute", *SMALL, "--start-method", method],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0
    assert all(line.startswith("demo: ") for line in done.stderr.splitlines())
    assert rows(done.stdout) == [(name, on, "exact") for name in NAMES for on in demo.BACKENDS]
    assert done.stdout.splitlines()[-1] == "segments left: 0"


def test_tells_where_and_how_it_was_measured(serial, capsys):
    """Versions, machine and date stand above the times; what they exclude stands below."""
    assert main(SMALL) == 0
    text = capsys.readouterr().out
    before, after = text.split("kernel ")
    for word in ("Python", "numpy", "numba", "platform", "cores", "memory", "/dev/shm", "date"):
        assert f"\n{word} " in before
    assert "compiling and starting workers is excluded" in after


@pytest.mark.parametrize("number", range(len(TRIALS)))
def test_one_bit_of_difference_fails(number, serial, monkeypatch, capsys):
    """A single element that differs in its last bit is told by kernel and backend; exit code 1."""
    trial = TRIALS[number]

    def nearly(x):
        expected = trial.reference(x)
        bits = expected[-1:].view(np.uint64)
        bits ^= 1
        return expected

    wrong = dataclasses.replace(trial, reference=nearly)
    monkeypatch.setattr(demo, "TRIALS", (*TRIALS[:number], wrong, *TRIALS[number + 1 :]))
    assert main(SMALL) == 1
    text = capsys.readouterr()
    assert text.err == f"shmcompute: {trial.name} on serial: DIFFERS from NumPy\n"
    assert [verdict for *_, verdict in rows(text.out)].count("exact") == len(TRIALS) - 1
    assert text.out.endswith("segments left: 0\n")


def test_an_error_of_one_row_leaves_the_others(serial, monkeypatch, capsys):
    """A kernel that fails is told with its error; the rest is measured; exit code 1."""
    broken = dataclasses.replace(TRIALS[0], name="broken", kernel=lambda x: 1)
    monkeypatch.setattr(demo, "TRIALS", (broken, *TRIALS))
    assert main(SMALL) == 1
    text = capsys.readouterr()
    assert text.err.startswith("shmcompute: broken on serial: failed: kernel ")
    assert rows(text.out)[1:] == [(name, "serial", "exact") for name in NAMES]
    assert text.out.endswith("segments left: 0\n")


def test_a_segment_left_behind_is_counted(serial, monkeypatch, capsys):
    """The last line counts what is still there under its name, and that is a failure."""
    kept = []

    class Lasting(SharedArray):
        def __init__(self, data):
            super().__init__(data, storage="shm")
            kept.append(self)

        def close(self):
            pass

    monkeypatch.setattr(demo, "SharedArray", Lasting)
    try:
        assert main(SMALL) == 1
        assert capsys.readouterr().out.endswith("segments left: 3\n")
    finally:
        for array in kept:
            SharedArray.close(array)


@pytest.mark.parametrize("trial", TRIALS, ids=NAMES)
def test_kernels_and_references_agree_without_any_backend(trial):
    """Called directly on the whole input, a kernel gives exactly what its reference gives."""
    start = trial.start(1)
    x = start.copy()
    trial.kernel(x)
    assert x.dtype == start.dtype
    assert np.array_equal(x, trial.reference(start))
    assert not np.array_equal(x, start)


def test_references_are_right():
    """What results are compared with agrees with numbers known from elsewhere."""
    assert stream_numpy(np.array([0.0, 1.0, 2.5])).tolist() == [1.0, 4.0, 8.5]
    assert collatz_numpy(np.array([1, 2, 3, 7, 27, 97])).tolist() == [0, 1, 7, 16, 111, 118]
    value = 0.25
    for _ in range(40):
        value = 3.9 * value * (1.0 - value)
    assert logistic_numpy(np.array([0.25])).tolist() == [value]


@pytest.mark.parametrize(
    ("free", "shared", "mib"),
    [
        (64 << 30, 64 << 30, 256),  # plenty
        (64 << 30, 64 << 20, 32),  # a container
        (64 << 30, 1 << 20, 8),  # storage="array" steps in
        (64 << 30, None, 256),  # a platform that does not tell
        (512 << 20, 64 << 30, 64),
        (0, 0, 8),
    ],
)
def test_size_fits_the_machine(free, shared, mib, monkeypatch):
    """The largest array takes at most half of /dev/shm and an eighth of memory."""
    monkeypatch.setattr(demo.memory, "available", lambda: free)
    monkeypatch.setattr(demo.shm_space, "free_bytes", lambda: shared)
    assert demo.fitting() == mib


def test_a_size_that_memory_can_not_bear_is_refused(capsys):
    """Too large a size is one line on stderr, not the death of the process; exit code 2."""
    assert main(["demo", "--size", str(1 << 30)]) == 2
    text = capsys.readouterr()
    assert text.out == ""
    assert text.err.startswith(f"shmcompute: --size {1 << 30}: takes ")


def test_shows_how_far_it_is(serial, monkeypatch, capsys):
    """A line on stderr now and then, where that is no terminal; stdout has the tables alone."""
    for name in ("SOON", "FIRST", "LONGEST"):
        monkeypatch.setattr(progress, name, 0)
    assert main(SMALL) == 0
    out, err = capsys.readouterr()
    assert "demo: 1/3 rows" in err
    assert "demo: 3/3 rows, 100 %" in err
    assert "demo:" not in out

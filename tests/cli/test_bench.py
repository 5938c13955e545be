"""The bench compares each way with ours, and each result with NumPy's."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from shmcompute.cli import bench, main
from shmcompute.cli.bench_peers import PEERS

QUICK = """
import sys
from shmcompute.cli import bench, main
bench.ENOUGH, bench.FEWEST = 0, 1
sys.exit(main(["bench", "--size", "1", "--workers", "2", *sys.argv[1:]]))
"""


@pytest.mark.long
def test_every_way_is_exact_and_has_its_time():
    """Eleven ways and three jobs, in a program of its own: it forks."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUICK, "--json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert all(line.startswith("bench: ") for line in done.stderr.splitlines())
    times = json.loads(done.stdout)
    jobs = ["tiny", "stream", "compute"]
    assert [(one["peer"], one["job"]) for one in times] == [(p, j) for p in PEERS for j in jobs]
    assert {one["checked"] for one in times} == {"exact"}
    assert all(one["seconds"] > 0 for one in times)


def _alone(monkeypatch, run):
    def peer(count, workers):
        from contextlib import nullcontext

        array = np.empty(count)
        return nullcontext((array, lambda name: run(array, name)))

    monkeypatch.setattr(bench, "ENOUGH", 0)
    for name in PEERS:
        monkeypatch.setitem(PEERS, name, peer)


def test_one_bit_of_difference_fails(monkeypatch, capsys):
    """It is told by way and job; exit code 1."""

    def nearly(array, name):
        array[:] = bench.REFERENCES[name](array)
        if array.size == bench.TINY:
            array[-1:].view(np.uint64)[:] ^= 1

    _alone(monkeypatch, nearly)
    assert main(["bench", "--size", "1"]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err == [f"shmcompute: {name}, tiny: DIFFERS from NumPy" for name in PEERS]


def test_a_way_that_fails_leaves_the_others(monkeypatch, capsys):
    """Its cells say so, and the table is printed."""

    def fails(array, name):
        raise OSError("no pipes")

    def works(array, name):
        array[:] = bench.REFERENCES[name](array)

    _alone(monkeypatch, works)
    works_peer = PEERS["Pool"]
    _alone(monkeypatch, fails)
    for name in PEERS:
        if name != "Pipe":
            monkeypatch.setitem(PEERS, name, works_peer)
    assert main(["bench", "--size", "1"]) == 1
    out, err = capsys.readouterr()
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    assert rows["Pipe"][1:] == ["failed"] * 3
    assert rows["SharedArray"][2:] and "1x" in rows["SharedArray"]
    assert err.count("failed: OSError: no pipes") == 3


def test_too_large_a_size_is_refused(capsys):
    assert main(["bench", "--size", str(1 << 30)]) == 2
    assert "takes" in capsys.readouterr().err

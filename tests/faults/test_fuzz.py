"""Damaged segments, files and handles: refused by a typed error, or read as NumPy reads them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import mutations
import numpy as np
import pytest
from faults.trial import TRAILERS, scaled
from kernels import run

from shmcompute.errors import SegmentFormatError
from shmcompute.storage import layout, npy_header

MOST = 128  # MiB that a batch may take at its peak beyond what it started with
BATCH = 5_000


def fuzz(first, count, note):
    """Run trials in a process of their own, again after each that it dies of; what came of them."""
    counts, failures, end = Counter(), [], first + count
    while first < end:
        done = subprocess.run(
            [sys.executable, mutations.__file__, str(first), str(end - first), str(note)],
            capture_output=True,
            text=True,
            timeout=600,
        )
        if done.returncode == 0:
            report = json.loads(done.stdout)
            failures += report.pop("failures")
            peak = max(counts.pop("peak", 0), report.pop("peak"))
            return counts + Counter(report) + Counter(peak=peak), failures
        at = int(note.read_text())
        counts["crashes"] += 1
        failures.append(f"trial({at}) ended the process with {done.returncode}: {done.stderr}")
        first = at + 1
    return counts, failures


def _check(counts, failures):
    assert not failures, "\n".join(failures)
    assert not counts["crashes"] + counts["wrong"] + counts["descriptors"] + counts["mappings"]
    assert counts["peak"] <= MOST


@pytest.mark.long
def test_what_lies_is_refused_or_read_as_numpy_reads_it(tmp_path):
    counts, failures = fuzz(0, 2_000, tmp_path / "note")
    _check(counts, failures)
    assert counts["attached"] + counts["refused"] == 2_000
    assert min(counts["attached"], counts["refused"]) > 200  # or the trials would show nothing


@pytest.mark.soak
def test_what_lies_is_refused_or_read_as_numpy_reads_it_for_long(tmp_path, counts):
    """The same, a hundred thousand times."""
    failures = []
    with counts.trial(TRAILERS) as trial:
        for first in range(0, scaled(100_000), BATCH):
            size = min(BATCH, scaled(100_000) - first)
            found, failed = fuzz(10**6 + first, size, tmp_path / "note")
            failures += failed
            trial.count += found["attached"] + found["refused"]
            for what in ("attached", "refused"):
                trial.tell(what, found[what])
            trial.never("crashes", found["crashes"])
            trial.never("wrong attaches", found["wrong"])
            trial.never("leaks", found["descriptors"] + found["mappings"])
            trial.within("memory", found["peak"], most=MOST, unit="MiB")
        assert not failures, failures[:5]


def test_a_process_that_dies_of_a_trial_is_counted(tmp_path, monkeypatch):
    """The judge of crashes is itself judged."""
    script = tmp_path / "dies.py"
    script.write_text(
        "import json, os, sys\n"
        "first, count, note = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]\n"
        "open(note, 'w').write(str(first + 3))\n"
        "if first < 6: os.kill(os.getpid(), 11)\n"
        "print(json.dumps(dict(refused=count, failures=[], peak=1)))\n"
    )
    monkeypatch.setattr(mutations, "__file__", str(script))
    counts, failures = fuzz(0, 10, tmp_path / "note")
    assert counts["crashes"] == len(failures) == 2
    assert "trial(3)" in failures[0] and "-11" in failures[0]


@pytest.mark.long
def test_no_header_overflows_the_stack_of_a_small_thread():
    """Where `ast.literal_eval` alone would end the process."""
    done = run(BOMBS, Path(mutations.__file__).parent)
    assert int(done.stdout) > 100


BOMBS = """
import sys, threading
from contextlib import suppress
sys.path.insert(0, sys.argv[1])
import mutations
from shmcompute.errors import SegmentFormatError
from shmcompute.storage import npy_header, layout

def read():
    count = 0
    for number, bomb in enumerate(mutations.BOMBS):
        for size in mutations.BOMB_SIZES:
            parts = {"descr": "'<f8'", "fortran_order": "False", "shape": bomb(size)}
            text = mutations.text_of(parts).encode()
            with suppress(SegmentFormatError):
                head = npy_header.npy.magic(2, 0) + len(text).to_bytes(4, "little")
                layout.parse_header("x", head + text)
            count += 1
    print(count)

threading.stack_size(256 << 10)
thread = threading.Thread(target=read)
thread.start()
thread.join()
"""


def _nested(depth):
    dtype = np.dtype("f8")
    for _ in range(depth):
        dtype = np.dtype([("a", dtype)])
    return dtype


def test_a_dtype_nested_too_deeply_is_refused_when_it_is_made_not_when_it_is_attached():
    made = layout.Layout.of(2, _nested(14))
    raw = npy_header.write(made.shape, made.dtype, fortran=False)
    assert layout.parse_header("x", raw) == made
    with pytest.raises(TypeError, match="nested"):
        layout.Layout.of(2, _nested(17))


def test_a_claim_of_gigabytes_of_header_reads_none_of_it(tmp_path):
    """NumPy would read them all before it looks at their number."""
    path = tmp_path / "x.npy"
    path.write_bytes(npy_header.npy.magic(2, 0) + b"\xff" * 4)
    os.truncate(path, 2**33)
    with pytest.raises(SegmentFormatError, match="4294967295"):
        mutations.storage.open_file(path, "r")


@pytest.mark.parametrize("kind", ["shm", "file"])
def test_what_shrinks_while_it_is_attached_ends_nobody(kind):
    """Another process cuts it off and makes it whole again, as fast as it can."""
    done = run(RACE, kind)
    attached, refused = map(int, done.stdout.split())
    assert attached + refused == 2000


RACE = """
import fcntl, os, signal, sys
import numpy as np, shmcompute as sc
from shmcompute import storage
from shmcompute.storage import shm
kind, name = sys.argv[1], f"fuzz_{os.getpid()}"
path = f"/dev/shm/{name}"
if kind == "shm":
    with sc.SharedArray(np.zeros(1000), storage="shm") as arr:
        whole = open(f"/dev/shm/{arr.name}", "rb").read()
else:
    path += ".npy"
    with open(path, "wb") as file:
        np.save(file, np.zeros(1000))
    whole = open(path, "rb").read()
fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(fd, fcntl.LOCK_SH)  # or another program's reaper would take it
os.pwrite(fd, whole, 0)
other = os.fork()
if not other:
    while os.getppid() != 1:
        for size in (0, 100, 4096, len(whole) - 1):
            os.ftruncate(fd, size)
            os.ftruncate(fd, len(whole))
            os.pwrite(fd, whole, 0)
counts = [0, 0]
try:
    for _ in range(2000):
        try:
            found = storage.attach(name) if kind == "shm" else storage.open_file(path, "r+")
            assert found[1].shape == (1000,) and found[1].dtype == float
            counts[0] += 1
        except sc.errors.StorageError:
            counts[1] += 1
        found = None
finally:
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    os.unlink(path)
print(*counts)
"""

"""A topic of arrays in files: with a sixth of the memory that they would take."""

import os
import tempfile

import numpy as np

from benchmarks import on_file
from benchmarks.bars.turns import Outcome, ratio

MIB = 1 << 20
FILE_MIB = int(os.environ.get("SHMCOMPUTE_BENCH_FILE_MIB", "3072"))


def larger_than_memory():
    """A `.npy` file of six times the memory that there is, gone through in place."""
    pairs = (("shmcompute", "memmap loop", 1.11), ("a chain", "four calls", 0.35))
    with tempfile.TemporaryDirectory(dir=os.environ.get("SHMCOMPUTE_BENCH_FOLDER")) as folder:
        path = os.path.join(folder, "x.npy")
        _write(path, FILE_MIB * MIB // 8)
        for way, base, bar in pairs:
            what = f"{way}, {FILE_MIB} MiB .npy in {FILE_MIB // 6} MiB, against {base}"
            try:
                found = {name: [_within(name, path)] for name in (base, way)}
            except OSError as error:
                yield Outcome(what, bar, why=f"no control group may be made: {error}")
                continue
            yield ratio(what, found, way, base, bar)


def _within(way, path):
    return on_file.within(FILE_MIB // 6 * MIB, way, path)


def _write(path, elements):
    array = np.lib.format.open_memmap(path, "w+", "f8", (elements,))
    for start in range(0, elements, on_file.BLOCK):
        array[start : start + on_file.BLOCK] = np.random.default_rng(start).random()
    array.flush()

"""What a run has measured, as pytest-benchmark's JSON tells it."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median

OURS = "shmcompute"
PRANGE = "Numba prange"
TIMES = "\N{MULTIPLICATION SIGN}"
QUIET = 10  # per cent of the processors; reports tell when other programs took more


@dataclass(frozen=True)
class Group:
    """Rows of one job, each with the median of its runs in seconds."""

    name: str
    rows: dict[str, float]
    base: str  # the row that others are compared with

    def ratio(self, row):
        """To the base; None where one of the two was not measured."""
        if row not in self.rows or self.base not in self.rows:
            return None
        return self.rows[row] / self.rows[self.base]


# In the order of the report. Those of the first kind have the same rows.
COMMON = {
    "dispatch": PRANGE,
    "stream": PRANGE,
    "compute": PRANGE,
    "python kernel": "serial",
    "skewed load": PRANGE,
}
OTHERS = {
    "chain of four": PRANGE,
    **dict.fromkeys(["sum", "standard deviation", "argmax", "cumsum", "sort", "argsort"], "NumPy"),
    **dict.fromkeys(["median", "histogram", "bincount"], "NumPy"),
    "blur": PRANGE,
    "wrap cost": "np.copyto, touched memory",
    "first call": PRANGE,
    "start-up": "serial",
    "tiny tasks": "ProcessPoolExecutor",
    "imap, chunks of 100": "mp.Pool",
    "counter of four processes": "mp.Value, its lock",
    "queue of 1 KiB": "mp.Queue",
    "queue of 1 MiB": "mp.Queue",
    "queue of 64 MiB": "mp.Queue",
    "hand-over of 64 MiB": "pickled",
    "start to first task": "ProcessPoolExecutor, fork",
}


@dataclass(frozen=True)
class Results:
    """A run: its groups, where and when."""

    common: list[Group]
    others: list[Group]
    machine: dict
    date: str

    @property
    def rows(self):
        """Names of the rows of the common groups: ours as they come, then others, best first."""
        names = list(dict.fromkeys(name for group in self.common for name in group.rows))
        ours = [name for name in names if name.startswith(OURS)]
        peers = [name for name in names if not name.startswith(OURS)]
        return ours + sorted(peers, key=self._typical)

    def _typical(self, row):
        """Its middle ratio."""
        ratios = [ratio for group in self.common if (ratio := group.ratio(row)) is not None]
        return median(ratios) if ratios else float("inf")


def read(path):
    """The results in a file that ``pytest --benchmark-json`` has written."""
    found = json.loads(Path(path).read_text())
    rows = {}
    for made in found["benchmarks"]:
        rows.setdefault(made["group"], {})[made["name"]] = made["stats"]["median"]
    return Results(
        [Group(name, rows[name], base) for name, base in COMMON.items() if name in rows],
        [Group(name, _sorted(rows[name]), base) for name, base in OTHERS.items() if name in rows],
        found["machine_info"],
        found["datetime"][:10],
    )


def _sorted(rows):
    return dict(sorted(rows.items(), key=lambda row: row[1]))


def duration(seconds):
    """Three digits and a unit."""
    for scale, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale * 0.9995:
            return f"{_digits(seconds / scale, 3)} {unit}"
    return f"{_digits(seconds / 1e-9, 3)} ns"


def times(ratio):
    """A ratio, in two digits, or three where it is nearly 1."""
    return f"{_digits(ratio, 3 if 0.9 <= ratio < 1.995 else 2)}{TIMES}"


def _digits(number, digits):
    rounded = float(f"{number:.{digits - 1}e}")
    return f"{rounded:,.{max(0, digits - 1 - math.floor(math.log10(rounded)))}f}"

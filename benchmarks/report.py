"""``python -m benchmarks.report FILE.json``: the tables and the plot from a run."""

import argparse
import os
from pathlib import Path

from benchmarks import plot, results
from benchmarks.results import OURS, QUIET, TIMES, duration, times

ROOT = Path(__file__).parents[1]
README_ROWS = {
    "shmcompute processes",
    "shmcompute processes, caller_runs",
    "shmcompute threads",
    "Numba prange",
    "mp.Pool, SharedMemory",
    "ProcessPoolExecutor",
    "serial",
    "joblib",
    "Ray",
    "mp.Queue",
    "mp.Manager",
}
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def main(arguments=None):
    """Read the run, write the plot, then what stands between the markers of the two pages."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=main.__doc__)
    parser.add_argument("json", type=Path, help="what pytest --benchmark-json has written")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md")
    parser.add_argument("--comparison", type=Path, default=ROOT / "docs" / "comparison.md")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "benchmarks.svg")
    options = parser.parse_args(arguments)

    run = results.read(options.json)
    options.plot.parent.mkdir(exist_ok=True)
    options.plot.write_text(plot.drawn(run))
    for page, written in ((options.readme, summary), (options.comparison, section)):
        image = Path(os.path.relpath(options.plot, page.parent)).as_posix()
        page.write_text(inserted(page.read_text(), written(run, image)))


def inserted(text, part, begin=BEGIN, end=END):
    """`text` with `part` between its markers, in place of what was there."""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"expected {begin} and {end} once each, to know what to replace")
    before, rest = text.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n{part}\n{end}{after}"


def summary(run, image):
    """What the README has: the groups that all take part in, and the peers that most know."""
    known = [name for name in run.rows if name in README_ROWS]
    return "\n\n".join(_head(run, image, known))


def _head(run, image, names):
    return [
        facts(run),
        f"![Medians of every group as bars on a log scale]({image})",
        "Median of a run, and its ratio to the row that the head of the column names:",
        common_table(run, names),
    ]


def section(run, image):
    """What the page of the comparison has: all of it."""
    parts = [
        *_head(run, image, run.rows),
        "Groups with rows of their own:",
        other_table(run),
    ]
    if missing := run.machine.get("not_installed"):
        parts.append(f"Not installed, so not measured: {', '.join(missing)}.")
    return "\n\n".join(parts)


def facts(run):
    """Where and when it was measured, in a sentence."""
    machine = run.machine
    cpu = machine.get("cpu", {}).get("brand_raw", machine.get("machine", "unknown processor"))
    busy = machine.get("busy", 0.0)
    others = f" Other programs took {busy:.0f} % of the processors." if busy >= QUIET else ""
    return (
        f"Measured on {run.date}: {cpu}, {machine['cores_granted']} cores granted, "
        f"{machine['system']}, Python {machine['python_version']}, NumPy {machine['numpy']}, "
        f"Numba {machine['numba']}; the largest array has {machine['mebibytes']:g} MiB.{others}"
    )


def common_table(run, names):
    """A row for each of these peers, a column for each of the groups that all take part in."""
    heads = ["", *(f"{group.name}<br>({TIMES} {group.base})" for group in run.common)]
    lines = [[_bold(name), *(_cell(group, name) for group in run.common)] for name in names]
    return _markdown(heads, lines)


def other_table(run):
    """A row for each measurement."""
    heads = ["group", "", "median", "ratio"]
    lines = []
    for group in run.others:
        for number, name in enumerate(group.rows):
            ratio = group.ratio(name)
            said = "" if ratio is None else times(ratio)
            first = f"{group.name} ({TIMES} {group.base})" if number == 0 else ""
            lines.append([first, _bold(name), duration(group.rows[name]), said])
    return _markdown(heads, lines)


def _cell(group, name):
    if name not in group.rows:
        return ""
    ratio = group.ratio(name)
    return duration(group.rows[name]) + ("" if ratio is None else f" ({times(ratio)})")


def _bold(name):
    return f"**{name}**" if name.startswith(OURS) else name


def _markdown(heads, lines):
    numbers = ["---" if not head or head == "group" else "---:" for head in heads]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, numbers, *lines])


if __name__ == "__main__":
    main()

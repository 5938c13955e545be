"""``python -m faults.report FILE.json``: the table of RELIABILITY.md from a run.

With ``tests`` on the path, as ``tox run -e soak`` has it.
"""

import argparse
from pathlib import Path

from faults import counts
from faults.trial import TRIALS

from benchmarks.report import inserted

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- trials: begin -->", "<!-- trials: end -->"


def main(arguments=None):
    """Read the counts, write the part of the page between the markers."""
    parser = argparse.ArgumentParser(prog="python -m faults.report", description=main.__doc__)
    parser.add_argument(
        "json",
        type=Path,
        nargs="+",
        help="what pytest --counts has written; trials that were run again come later",
    )
    parser.add_argument("--page", type=Path, default=ROOT / "RELIABILITY.md")
    options = parser.parse_args(arguments)
    first, *again = map(counts.read, options.json)
    part = section(first, *again)
    options.page.write_text(inserted(options.page.read_text(), part, BEGIN, END))


def section(run, *again):
    """All that stands between the markers: of a run, and of trials that were run again."""
    told = facts(run)
    for other in again:
        run["trials"].update(other["trials"])
        told += f" Run again by itself on {other['date']}: {', '.join(other['trials'])}."
    return f"{told}\n\n{table(run['trials'])}"


def facts(run):
    """When and where it was run, by what command, and how much of it."""
    scale = run["scale"]
    part = "" if scale == 1 else f" Of each trial only a part: {scale:g} of the full count."
    return (
        "Run on {date} by `tox run -e soak`: {cpu}, {cores} cores granted, {system}, "
        "Python {python}, NumPy {numpy}, Numba {numba}; it took {minutes:.0f} minutes."
    ).format(
        date=run["date"],
        minutes=sum(trial.seconds for trial in run["trials"].values()) / 60,
        **run["machine"],
    ) + part


def table(trials):
    """A row for each trial, also for those that were not run."""
    lines = ["| trial | count | found | bar |  |", "| --- | ---: | --- | --- | --- |"]
    lines += [_row(name, trials.get(name)) for name in TRIALS]
    return "\n".join(lines)


def _row(name, trial):
    if trial is None:
        return f"| {name} |  |  |  | **not run** |"
    asked = TRIALS[name]
    few = f" of {asked:,}" if asked is not None and trial.count < asked else ""
    held = "held" if trial.held else "**not held**"
    found = trial.found.replace("|", "\\|")
    return f"| {name} | {trial.size}{few} | {found} | {trial.asked} | {held} |"


if __name__ == "__main__":
    main()

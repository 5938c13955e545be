"""The command `doctor`: what it finds, each with its remedy, for people or as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict

from shmcompute.cli.text import write
from shmcompute.diagnostics import BROKEN, CHECKS, OK, WARNING, Finding, examine
from shmcompute.progress import counted

MARKS = {OK: "ok", WARNING: "warning", BROKEN: "BROKEN"}


def doctor(*, as_json: bool = False) -> int:
    """Look at this host, and print what is found.

    Returns
    -------
    int
        0, also with warnings: all works. 1 if something is broken.
    """
    findings = list(examine(counted(CHECKS, "check", "doctor")))
    counts = Counter(finding.state for finding in findings)
    worst = next((state for state in (BROKEN, WARNING) if counts[state]), OK)
    if as_json:
        report = {"status": worst, "findings": [asdict(finding) for finding in findings]}
        write(json.dumps(report, indent=2))
    else:
        write(*_lines(findings), "", _verdict(counts))
    return 1 if worst == BROKEN else 0


def _lines(findings: Iterable[Finding]) -> Iterable[str]:
    rows = list(findings)
    state, check = max(map(len, MARKS.values())), max(len(row.check) for row in rows)
    for row in rows:
        yield f"{MARKS[row.state]:{state}}  {row.check:{check}}  {row.found}"
        if row.remedy:
            yield f"{'':{state + check + 2}}  -> {row.remedy}"


def _verdict(counts: Counter[str]) -> str:
    """The last line."""
    broken, warnings = counts[BROKEN], counts[WARNING]
    if broken:
        return f"{broken} broken, {warnings} to look at: see the lines with ->"
    if warnings:
        return f"all works; {warnings} to look at: see the lines with ->"
    return "all is well"

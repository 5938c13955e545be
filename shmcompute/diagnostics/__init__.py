"""What a program does, and what this host offers it: these listen and look, and change nothing."""

from shmcompute.diagnostics import huge_pages
from shmcompute.diagnostics.doctor import CHECKS, examine
from shmcompute.diagnostics.explain_call import explain, explain_plan
from shmcompute.diagnostics.explanation import Explanation
from shmcompute.diagnostics.finding import BROKEN, OK, WARNING, Finding, human

__all__ = [
    "BROKEN",
    "CHECKS",
    "OK",
    "WARNING",
    "Explanation",
    "Finding",
    "examine",
    "explain",
    "explain_plan",
    "huge_pages",
    "human",
    "trace",
]

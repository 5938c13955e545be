"""Which backend a call gets: a guess by its bytes, then what calls like it have taken."""

from shmcompute.tuning.choose import Choice, choose
from shmcompute.tuning.cost_model import START
from shmcompute.tuning.records import Decision, Record, Records, outline
from shmcompute.tuning.work import Work, work_of

__all__ = [
    "START",
    "Choice",
    "Decision",
    "Record",
    "Records",
    "Work",
    "choose",
    "outline",
    "work_of",
]

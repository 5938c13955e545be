"""`advise`: all that is slow or odd in a call, each with its remedy."""

from __future__ import annotations

from collections.abc import Iterator

from shmcompute.diagnostics import chunk_advice, data_advice, kernel_advice
from shmcompute.diagnostics.case import Case
from shmcompute.diagnostics.explanation import Advice

_LOOKS = {**kernel_advice.LOOKS, **chunk_advice.LOOKS, **data_advice.LOOKS}


def advise(case: Case) -> Iterator[Advice]:
    """All that there is to say: on the kernels, the chunks, the data."""
    for topic, look in _LOOKS.items():
        for text, remedy in look(case):
            yield Advice(topic, text, remedy)

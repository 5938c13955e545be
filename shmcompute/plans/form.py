"""`Form`: what plans share whose arrays are of the same kinds."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from shmcompute.kernels import NativePlan
from shmcompute.system.call_context import CallContext


@dataclass(eq=False)
class Form:
    """What plans have in common that differ in their arrays' places and in their chunks alone.

    Workers hold a plan's form: it is detached from its arrays, of which they are told with each
    call. It has the types of kernels and arguments, so one native plan serves all.
    """

    number: int = field(default_factory=itertools.count(1).__next__)  # unique in this process
    native: NativePlan | None = None
    reasons: tuple[str | None, ...] = ()  # of each kernel: why it needs Python, if it does
    is_made: bool = False  # whether it is known if there is a native plan
    by_python: int = 0  # chunks that a single thread has called from Python
    within: dict[CallContext, Form] = field(default_factory=dict)  # the latest, and the form there

"""`Form`: what plans share whose arrays are of the same kinds."""

from __future__ import annotations

import itertools

from shmcompute.kernels import NativePlan
from shmcompute.system.call_context import CallContext

_numbers = itertools.count(1)


class Form:
    """What plans have in common that differ in their arrays' places and in their chunks alone.

    Workers hold a plan's form: it is detached from its arrays, of which they are told with each
    call. It has the types of kernels and arguments, so one native plan serves all.
    """

    def __init__(self) -> None:
        self.number = next(_numbers)  # unique in this process
        self.native: NativePlan | None = None
        self.reasons: tuple[str | None, ...] = ()  # of each kernel: why it needs Python, if it does
        self.is_made = False  # whether it is known if there is a native plan
        self.within: dict[CallContext, Form] = {}  # the latest context, and the form there

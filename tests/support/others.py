"""Tests of what every process of this user may remove, so those of the suite beside this one."""

from __future__ import annotations

import contextlib
import functools

TRIES = 5


def undisturbed_once(test):
    """Try again: the first segment that a process makes has it remove all orphans there are.

    What the test asks of the product would fail at each try; another process comes once.
    """

    @functools.wraps(test)
    def tried(*args, **given):
        for _ in range(TRIES - 1):
            with contextlib.suppress(Exception):
                return test(*args, **given)
        return test(*args, **given)

    return tried

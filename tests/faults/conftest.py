"""A watchdog, and pools that may be harmed."""

from __future__ import annotations

import faulthandler
import signal

import failing
import pytest
from faults.trial import CALLS
from harness import made
from methods import METHODS

from shmcompute.system import atomic_words

WAITS = ["futex", "poll"] if atomic_words.has_futex() else ["poll"]
PATIENCE = 60  # seconds that a test may take before it counts as hung


class Hung(BaseException):
    """Raised in a test that does not end."""


@pytest.fixture(autouse=True)
def watchdog(request):
    """A hang is a failure; if not even that gets through, the end of the run, with all stacks."""
    if request.node.get_closest_marker("soak"):
        yield
        return

    def bark(*_):
        raise Hung(f"no end after {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, bark)
    signal.alarm(PATIENCE)
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def sweep(counts):
    """`failing.sweep`, whose faults are counted."""

    def swept(*args):
        with counts.trial(CALLS) as trial:
            trial.never("untyped errors")
            trial.never("left behind")
            trial.count += failing.sweep(*args)

    return swept


@pytest.fixture(params=WAITS)
def waiting(request):
    return request.param


@pytest.fixture(params=METHODS)
def mortal(request, waiting):
    """A pool of every start method and waiting, which a test may harm as often as it likes."""
    with made(request.param, waiting) as pool:
        yield pool.ready()

"""Ctrl-C at any instruction of making an array leaves no descriptor, name or mapping behind."""

from __future__ import annotations

import gc
import os
import signal
import time

import numpy as np
import pytest

import shmcompute as sc
from shmcompute import storage


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.fixture
def alarm():
    """Sets a timer whose signal interrupts.

    Within a callback of the garbage collector, which others may have set, Python only reports it,
    with frames that hold on to arrays: so it does not collect meanwhile.
    """
    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.enable()
    signal.signal(signal.SIGALRM, before)


def made_until(alarm, seconds):
    """Whether an interrupt came while an array was made."""
    try:
        alarm(seconds)
        array = sc.SharedArray.zeros(1000)
        alarm(0)
        array.close()
    except KeyboardInterrupt:
        return True
    return False


@pytest.mark.parametrize("kept", ["0", str(1 << 20)], ids=["new", "used again"])
def test_an_interrupt_while_an_array_is_made(alarm, kept, monkeypatch):
    monkeypatch.setenv("SHMCOMPUTE_WARM_BYTES", kept)
    began = time.perf_counter()
    sc.SharedArray.zeros(1000).close()
    most = 2 * (time.perf_counter() - began)
    dice, interrupts = np.random.default_rng(0), 0
    segments, descriptors = len(storage.live()), len(os.listdir("/proc/self/fd"))
    for seconds in dice.uniform(1e-6, most, 600):
        interrupts += made_until(alarm, seconds)
    assert interrupts
    assert len(storage.live()) == segments
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 1  # of memory that is kept, one

"""{error, exit, crash} x {pickling, unpickling, running, result}: never a hang, and the pool works.

After the matrices of loky's and CPython's suites. What happens while pickling, happens in the
caller: there only the error is a case.
"""

from __future__ import annotations

import faulthandler
import os
import signal

import numba as nb
import numpy as np
import pytest
from harness import stands_still

import shmcompute as sc
from shmcompute.errors import KernelSerializationError, RemoteKernelError, WorkerLostError


def _error():
    raise ArithmeticError("mine")


def _exit():
    os._exit(0)


def _crash():
    faulthandler.disable()  # a forked worker has it from pytest
    os.kill(os.getpid(), signal.SIGSEGV)


ACTS = {"error": _error, "exit": _exit, "crash": _crash}


class Pickled:
    """Acts when it is pickled."""

    def __init__(self, act):
        self.act = act

    def __reduce__(self):
        self.act()


class Unpickled:
    """Acts when it is unpickled."""

    def __init__(self, act):
        self.act = act

    def __reduce__(self):
        return self.act, ()


class Result(Exception):
    """Acts when a worker pickles it as what a kernel raised."""

    def __init__(self, act):
        super().__init__("result")
        self.act = act

    def __reduce__(self):
        self.act()


class Arrived(Exception):
    """Acts when the caller unpickles it, though not in the worker that tried before."""

    def __init__(self, home):
        super().__init__("arrived")
        self.home = home

    def __reduce__(self):
        return _arrived, (self.home,)


def _arrived(home):
    if os.getpid() == home:
        raise ArithmeticError("not here")
    return Arrived(home)


def _call(pool, arr, kernel, *more, **options):
    before = pool.pids
    try:
        sc.parallel_apply(kernel, arr, *more, **options, pool=pool)
    finally:
        stands_still(arr, pool, before)


def _raises(x, act):
    raise Result(act)


@pytest.mark.long
def test_every_act_at_every_moment(mortal):
    with sc.SharedArray(np.arange(10.0)) as arr:
        with pytest.raises(KernelSerializationError, match="mine"):
            _call(mortal, arr, _ignore, Pickled(_error))
        for name, act in ACTS.items():
            lost = pytest.raises(WorkerLostError)
            gone = name != "error"
            with lost if gone else pytest.raises(KernelSerializationError, match="mine"):
                _call(mortal, arr, _ignore, Unpickled(act))
            with pytest.raises(WorkerLostError if gone else ArithmeticError):
                _call(mortal, arr, _run, act)
            with pytest.raises(
                WorkerLostError if gone else RemoteKernelError, match="_raises|result"
            ):
                _call(mortal, arr, _raises, act)
        np.testing.assert_array_equal(arr.array, np.arange(10.0))


def _ignore(x, more):
    pass


def _run(x, act):
    act()


def test_an_exception_that_does_not_unpickle_in_the_caller_comes_as_text(mortal):
    def kernel(x, home):
        raise Arrived(home)

    refused = pytest.raises(RemoteKernelError, match="not here")
    with sc.SharedArray(np.arange(10.0)) as arr, refused:
        _call(mortal, arr, kernel, os.getpid())


@pytest.mark.long
def test_a_message_of_many_megabytes_arrives(mortal):
    """Longer than any pipe holds, from all workers at once."""

    def kernel(x):
        raise ValueError("long" * 5_000_000)

    with sc.SharedArray(np.arange(10.0)) as arr:
        with pytest.raises(ValueError) as caught:
            _call(mortal, arr, kernel)
        assert len(str(caught.value)) == 20_000_000


@nb.njit
def _writes(x, rounds):
    for _ in range(rounds):
        for i in range(x.size):
            x[i] += 1


@pytest.mark.long
@pytest.mark.parametrize("schedule", ["static", "dynamic", "guided"])
def test_what_is_not_named_as_undefined_is_done(mortal, schedule):
    """While others go on writing: they have stopped when the error comes."""

    def kernel(x, start):
        if start <= 950 < start + x.size:
            os.kill(os.getpid(), signal.SIGKILL)
        _writes(x, 1 if start % 3 else 200)
        x[:] = -1

    with sc.SharedArray(np.zeros(1000)) as arr:
        with pytest.raises(WorkerLostError, match="kernel") as caught:
            _call(mortal, arr, kernel, sc.offset, chunksize=20, schedule=schedule)
        known = np.ones(1000, bool)
        for start, stop in caught.value.chunks:
            known[start:stop] = False
        assert not known[950]
        assert known.any() or schedule != "static"
        assert (arr.array[known] == -1).all()

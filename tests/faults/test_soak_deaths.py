"""Workers go at random moments: every call ends, in time, in a right result or a typed error."""

from __future__ import annotations

import faulthandler
import gc
import random
import signal
import time

import leaks
import numba as nb
import numpy as np
import pytest
from faults.strike import DEADLY, LATE, Strike, dies
from faults.trial import DEATHS, RETRIES, scaled

import shmcompute as sc
from shmcompute.config import START_METHODS, WAITS
from shmcompute.errors import KernelTimeoutError, WorkerLostError

pytestmark = [
    pytest.mark.soak,
    pytest.mark.parametrize("waiting", WAITS),
    pytest.mark.parametrize("start_method", START_METHODS),
]
WAYS = len(WAITS) * len(START_METHODS)
LENGTH, CHUNK = 1 << 16, 1 << 13
HANG = 30  # seconds


class HungError(BaseException):
    pass


@pytest.fixture(autouse=True)
def without_traces():
    """Forked workers would each print pytest's trace of their crash."""
    faulthandler.disable()
    yield
    faulthandler.enable()


@pytest.fixture(autouse=True)
def alarm():
    """A call that does not end is ended, and counted."""

    def hung(*_):
        raise HungError

    before = signal.signal(signal.SIGALRM, hung)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@nb.njit
def steps(x, count):
    for i in range(x.size):
        for _ in range(count):
            x[i] = x[i] * 3.0 + 1.0


@nb.njit
def affine(x):
    for i in range(x.size):
        x[i] = x[i] * 3.0 + 1.0


def python_steps(x, count):
    for _ in range(count):
        x *= 3.0
        x += 1.0


class Caller:
    """Makes calls on a pool that loses its workers, and looks at what came of each."""

    def __init__(self, trial, pool, dice):
        self.trial, self.pool, self.dice = trial, pool, dice
        self.source = np.linspace(-1.0, 1.0, LENGTH)
        self.results = {count: self._steps(count) for count in (1, 4, 30)}
        self.arr, self.moment = sc.SharedArray(self.source), sc.SharedArray.zeros(1)

    def _steps(self, count):
        x = self.source.copy()
        python_steps(x, count)
        return x

    def close(self):
        self.arr.close()
        self.moment.close()

    def plain(self):
        """A call that nothing disturbs."""
        self._call(None)

    def struck(self):
        """A call during which a worker gets a signal."""
        pids = self.pool.pids
        number = self.dice.choice([*DEADLY, signal.SIGSTOP])
        with Strike(self.dice, pids, number, latest=0.004) as strike:
            timeout = LATE if number == signal.SIGSTOP else None
            began, error, ended = self._call(timeout)
        if strike.moment is None:
            return  # it was gone
        self._told(signal.Signals(number).name)
        if number == signal.SIGSTOP:
            if error is not None:
                self._late("timeout to exception", ended - began - timeout)
        elif error is not None:
            self._late("death to exception", ended - max(began, strike.moment))
            self._said(error, -number)
        self._works(stopped=strike.pid if number == signal.SIGSTOP else None, told=error)

    def left(self):
        """A call whose kernel goes."""
        how = self.dice.choice([*(-number for number in DEADLY), 0, 3])
        where = self.dice.randrange(0, LENGTH, CHUNK)
        self.moment[0] = 0.0
        args = (where, how, [self.moment.array])
        _, error, ended = self._call(None, kernel=dies, args=args)
        self._told(signal.Signals(-how).name if how < 0 else "exit")
        if error is None:
            self.trial.never("deaths taken for success", 1)
        else:
            self._late("death to exception", ended - self.moment[0])
            self._said(error, how)
        self._works(told=error)

    def _told(self, what):
        self.trial.tell(what)
        self.trial.count += 1

    def _late(self, what, seconds):
        self.trial.within(what, max(0.0, seconds), most=2.0, p99=0.25)

    def _said(self, error, exitcode):
        """The error names what ended the worker."""
        wrong = isinstance(error, WorkerLostError) and error.exitcode != exitcode
        self.trial.never("wrong exit codes", wrong)

    def _works(self, stopped=None, told=None):
        """The next call is in time. One may tell of a worker that went when the last had ended."""
        for _ in range(20):
            timeout = LATE if stopped in self.pool.pids else None
            began, error, ended = self._call(timeout)
            if error is None and timeout is None:
                self.trial.within("next call", ended - began, most=3.0)
                return
            if error is not None and stopped is None:
                self.trial.never("errors of the call after", told is not None)
                told = error
        self.trial.never("pools that did not heal", 1)

    def _call(self, timeout, kernel=None, args=()):
        """One call; when it began, what it raised, when it ended."""
        count = self.dice.choice(list(self.results))
        if kernel is None:
            kernel, args = self.dice.choice([steps, python_steps]), (count,)
        else:
            args, count = (sc.offset, *args), 1
        schedule = self.dice.choice(["static", "dynamic"])
        options = {"chunksize": CHUNK, "schedule": schedule, "timeout": timeout, "pool": self.pool}
        self.arr[:] = self.source
        self.trial.tell("calls")
        error, began = None, time.monotonic()
        signal.alarm(HANG)
        try:
            sc.parallel_apply(kernel, self.arr, *args, **options)
        except BaseException as raised:
            error = raised
        ended = time.monotonic()
        signal.alarm(0)
        self._look(error, timeout, self.results[count])
        return began, error, ended

    def _look(self, error, timeout, expected):
        """A right result, or an error of ours that told which chunks to distrust."""
        self.trial.never("hangs", isinstance(error, HungError))
        expectable = (type(None), WorkerLostError, KernelTimeoutError, HungError)
        self.trial.never("untyped errors", not isinstance(error, expectable))
        if not isinstance(error, expectable):
            raise error
        if error is None:
            self.trial.never("wrong results", not np.array_equal(self.arr.array, expected))
            return
        found = self.arr.array.copy()
        time.sleep(0.002)  # in which who still wrote would be seen
        self.trial.never("writes after an error", not np.array_equal(self.arr.array, found))
        named = {start for start, _ in getattr(error, "chunks", ())}
        for start in set(range(0, LENGTH, CHUNK)) - named:
            part = slice(start, start + CHUNK)
            known = any(np.array_equal(found[part], x[part]) for x in (expected, self.source))
            self.trial.never("half-done chunks not named", not known)


def test_random_deaths(start_method, waiting, monkeypatch, counts):
    monkeypatch.setenv("SHMCOMPUTE_WAIT", waiting)
    dice = random.Random(f"{start_method} {waiting}")
    with counts.trial(DEATHS) as trial:
        before, goal = leaks.held(), trial.count + scaled(1000 / WAYS)
        with sc.Pool(2, start_method=start_method) as pool:
            caller = Caller(trial, pool.ready(), dice)
            while trial.count < goal:
                dice.choice([caller.struck, caller.left])()
                for _ in range(8):
                    caller.plain()
            caller.close()
        del caller
        gc.collect()
        trial.never("leaks", len(leaks.left(before)))


def test_retries_hide_random_deaths(start_method, waiting, monkeypatch, counts):
    """A call under kills ends as one that nothing disturbed, bit for bit."""
    monkeypatch.setenv("SHMCOMPUTE_WAIT", waiting)
    dice = random.Random(f"{start_method} {waiting}")
    source = np.linspace(0, 1, 1 << 20)
    expected = source.copy()
    affine(expected)
    with (
        counts.trial(RETRIES) as trial,
        sc.Pool(2, start_method=start_method) as pool,
        sc.SharedArray(source) as arr,
    ):
        pool.ready()
        goal, calls = trial.count + scaled(500 / WAYS), 0
        while trial.count < goal and calls < 20 * goal:
            arr[:] = source
            calls += 1
            signal.alarm(HANG)
            with Strike(dice, pool.pids, signal.SIGKILL, latest=0.006) as strike:
                sc.parallel_apply(affine, arr, retries=3, chunksize=1 << 14, pool=pool)
            signal.alarm(0)
            trial.never("results unlike a serial one", not np.array_equal(arr.array, expected))
            trial.count += strike.moment is not None
        trial.tell("calls", calls)
        trial.never("calls that did not complete")

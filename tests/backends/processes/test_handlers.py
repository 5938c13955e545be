"""Handlers of signals that use the pool which the main thread is using: nobody waits for itself."""

from __future__ import annotations

import kernels
import pytest

PROGRAM = """
import os, random, signal, sys, time
import numpy as np, shmcompute as sc
from shmcompute.errors import ClosedError, WorkerLostError

arr, other = sc.SharedArray.zeros(4), sc.SharedArray.zeros(4)
pool = sc.Pool(2, backend=sys.argv[1], start_method="fork").ready()
sc.parallel_apply(np.negative, arr, pool=pool)

def handle(action):
    def handler(*_):
        action()
        handled.append(1)
    handled = []
    signal.signal(signal.SIGALRM, handler)
    return handled

def slow(x):
    while not x[0]:
        time.sleep(0.001)

def release():
    arr[:] = 1

def submit():
    if sys.argv[1] == "processes":  # the standard library's executor of threads hangs there
        return pool.submit(abs, -1)

def use():
    sc.parallel_apply(np.add, other, 1.0, pool=pool)
    if future := submit():
        assert future.result(30) == 1
"""


@pytest.mark.long
@pytest.mark.parametrize("backend", ["processes", "threads"])
def test_a_handler_may_use_the_pool_that_it_interrupts(backend):
    done = kernels.run(
        PROGRAM
        + """
handled = handle(lambda: (use(), release()))
signal.setitimer(signal.ITIMER_REAL, 0.05)
sc.parallel_apply(slow, arr, pool=pool)
handled = handle(use)
random.seed(3)
while len(handled) < 30:
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0005, 0.003))
    sc.parallel_apply(np.negative, arr, pool=pool)
    submit()
signal.setitimer(signal.ITIMER_REAL, 0)
pool.close()
print(other[0] >= 30)
        """,
        backend,
    )
    assert done.stdout == "True\n"


@pytest.mark.parametrize("close", ["pool.close", "sc.shutdown"])
def test_a_handler_that_closes_the_pool_ends_the_call_that_it_interrupts(close):
    done = kernels.run(
        PROGRAM
        + f"""
sc.default_pools.default_pools[""] = pool
handle({close})
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    sc.parallel_apply(slow, arr)
except WorkerLostError as error:
    print(error.__notes__)
try:
    sc.parallel_apply(slow, arr, pool=pool)
except ClosedError:
    print("closed")
        """,
        "processes",
    )
    assert "handler of a signal" in done.stdout
    assert done.stdout.endswith("closed\n")


@pytest.mark.parametrize("action", ["pool.close()", "pool.shutdown(wait=False)"])
@pytest.mark.parametrize("backend", ["processes", "threads"])
def test_a_pool_that_is_closed_at_any_point_of_a_call_is_closed(backend, action):
    done = kernels.run(
        PROGRAM
        + """
random.seed(4)
handle(lambda: exec(sys.argv[2]))
for _ in range(6):
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.001, 0.005))
    try:
        while True:
            sc.parallel_apply(np.negative, arr, pool=pool)
            submit()
    except (ClosedError, WorkerLostError, RuntimeError):
        pool = sc.Pool(2, backend=sys.argv[1], start_method="fork").ready()
print("closed")
        """,
        backend,
        action,
    )
    assert done.stdout == "closed\n"

"""In a program that gevent or eventlet has patched, everything works, and nothing hangs."""

from __future__ import annotations

import importlib.util
import threading

import pytest
from kernels import run

from shmcompute.system import unpatched

PROGRAM = """
import warnings
warnings.simplefilter("ignore")
{patch}
import faulthandler
faulthandler.dump_traceback_later(60, exit=True)
import numpy as np, numba, shmcompute as sc

@numba.njit
def jitted(x):
    x += 1

def put(queue):
    queue.put(np.full(3, 5.0))

with sc.SharedArray(np.zeros(100)) as arr, sc.ArrayQueue(3, "f8", slots=1) as queue:
    for backend in ("processes", "threads"):
        with sc.Pool(2, backend=backend) as pool:
            for kernel in (jitted, np.negative):
                for _ in range(2):
                    sc.parallel_apply(kernel, arr, pool=pool)
            future = pool.submit(put, queue)
            print(queue.get(timeout=30)[0], future.result(), list(pool.map(abs, [-1, -2])), arr[0])
"""
PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}


@pytest.mark.parametrize("library", PATCHES)
def test_threads_may_be_greenlets(library):
    if importlib.util.find_spec(library) is None:  # to import eventlet here would warn of forks
        pytest.skip(f"{library} is not installed")
    program = PROGRAM.format(patch=PATCHES[library])
    done = run(program, fresh="it is patched before anything is imported")
    assert done.stdout == "5.0 None [1, 2] 2.0\n5.0 None [1, 2] 4.0\n"


def test_elsewhere_threads_are_the_programs_own():
    assert not unpatched.patched()
    assert unpatched.threading is threading
    copied = unpatched._threading_anew()
    assert copied is not threading
    assert copied.Thread is not threading.Thread
    thread = copied.Thread(target=lambda: None)
    thread.start()
    thread.join()
